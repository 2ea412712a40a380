// The form that starts a simulation: only the parameters of what is chosen are shown, and presets fill fields in.
"use strict";

(() => {
  // The server marks what is not chosen, so that nothing flashes up before this runs.
  const showChosen = (form) => {
    for (const parameters of form.querySelectorAll("fieldset[data-of]")) {
      parameters.hidden = form.elements[parameters.dataset.of].value !== parameters.dataset.kind;
      parameters.removeAttribute("data-idle");
    }
  };

  const fill = (form) => {
    const filled = form.elements.filled;
    const texts = (name) => JSON.parse(form.querySelector(`option[value="${name}"]`).dataset.texts);
    const before = texts(filled.value);
    const now = texts(form.elements.preset.value);
    for (const field of form.querySelectorAll("[data-default]")) {
      const usual = field.dataset.default;
      // What was entered by hand stays.
      if (field.value.trim() === (before[field.name] ?? usual)) field.value = now[field.name] ?? usual;
    }
    filled.value = form.elements.preset.value;
    lineRows.show(form);
  };

  const start = () => document.getElementById("start");

  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form?.id !== "start") return;
    if (event.target.name === "preset") fill(form);
    showChosen(form);
  });

  // What the form would take, and its split where that is open: half a second after the last change.

  let waiting = 0;

  const refresh = () => {
    htmx.trigger("#estimate", "refresh");
    if (document.getElementById("split").open) htmx.trigger("#split-shown", "refresh");
  };

  for (const kind of ["input", "change"]) {
    document.addEventListener(kind, (event) => {
      if (!event.target.closest("#start")) return;
      clearTimeout(waiting);
      waiting = setTimeout(refresh, 500);
    });
  }

  const opened = (event) => {
    if (event.target.id === "split" && event.target.open) htmx.trigger("#split-shown", "refresh");
  };
  document.addEventListener("toggle", opened, true); // it does not bubble

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.requestConfig?.elt.id !== "start") return;
    const form = start();
    const isNew = event.detail.xhr.status >= 400;
    if (isNew) lineRows.setUp(form);
    showChosen(form);
    const wrong = [...form.querySelectorAll("[aria-invalid]")];
    if (isNew) return wrong.find((field) => field.offsetParent)?.focus();
    document.getElementById("more").removeAttribute("open");
    for (const field of wrong) field.removeAttribute("aria-invalid");
    for (const error of form.querySelectorAll(".error")) error.remove();
  });

  // A browser may put back what was entered before a reload, and tells it by no event.
  window.addEventListener("pageshow", () => {
    showChosen(start());
    lineRows.show(start());
  });

  lineRows.setUp(start());
  showChosen(start());
})();
