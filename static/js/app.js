// What a page does beyond htmx: the log follows its end, menus close, a stream goes on where it stopped.
"use strict";

(() => {
  const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

  // Times of the log in the reader's own zone. Without JavaScript they are UTC.
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
      time.textContent = clock.format(new Date(time.dateTime));
      time.title = time.dateTime;
      time.dataset.local = "";
    }
  };

  const say = (text) => {
    document.getElementById("notice").textContent = text;
  };

  // The log

  const atEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 24;

  const showState = (log) => {
    const live = document.getElementById("live");
    const states = { on: log.following ? "Live · following the end · " : "Live · scroll to the end to follow · ", lost: "Reconnecting · " };
    document.getElementById("log-state").textContent = states[live?.dataset.stream] ?? "";
  };

  const tend = (log) => {
    const limit = Number(log.dataset.limit);
    const lines = log.getElementsByTagName("li");
    while (lines.length > limit) lines[0].remove();
    localise(log);
    if (log.following) log.scrollTop = log.scrollHeight;
  };

  const follow = (log) => {
    if (log.following !== undefined) return;
    log.following = Boolean(log.closest("[sse-connect]"));
    log.addEventListener("scroll", () => {
      log.following = atEnd(log);
      showState(log);
    });
    new MutationObserver(() => tend(log)).observe(log, { childList: true });
    tend(log);
    showState(log);
  };

  const watch = () => {
    const log = document.getElementById("log");
    if (log) follow(log);
  };

  // The stream

  const mark = (section, state) => {
    section.dataset.stream = state;
    const log = document.getElementById("log");
    if (log) showState(log);
  };

  document.addEventListener("htmx:sseOpen", (event) => mark(event.target, "on"));

  document.addEventListener("htmx:sseError", (event) => {
    const finished = ["completed", "failed", "cancelled"].includes(document.getElementById("status")?.dataset.status);
    if (finished) event.target.removeAttribute("sse-connect"); // nothing more will come
    mark(event.target, finished ? "over" : "lost");
  });

  // The browser reconnects after the last id by itself; where it gives up, htmx begins anew at this address.
  document.addEventListener("htmx:sseMessage", (event) => {
    const section = event.target.closest("[sse-connect]");
    const id = event.detail.lastEventId;
    if (section && id) section.setAttribute("sse-connect", section.getAttribute("sse-connect").replace(/after=\d+/, `after=${id}`));
    if (event.detail.data.includes('id="summary"')) document.body.dispatchEvent(new CustomEvent("simulation-moved"));
  });

  document.addEventListener("htmx:sseClose", (event) => {
    if (event.detail.type !== "message") return;
    const log = document.getElementById("log");
    mark(event.target, "over");
    document.body.dispatchEvent(new CustomEvent("simulation-finished"));
    // Back to the top, unless the reader is reading or typing elsewhere.
    const busy = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName);
    if (!log?.following || busy) return;
    log.following = false;
    log.scrollTop = 0;
    window.scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth" });
  });

  document.addEventListener("change", (event) => {
    if (event.target.form?.hasAttribute("data-sends-itself")) event.target.form.requestSubmit();
  });

  // Menus close on Escape and on a click elsewhere.

  const closeMenus = (except) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== except) menu.open = false;
  };

  document.addEventListener("click", (event) => closeMenus(event.target.closest("details.menu")));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeMenus(null);
  });

  // htmx

  document.addEventListener("htmx:beforeRequest", () => say(""));
  document.addEventListener("htmx:sendError", () => say("The server does not answer. Is it running?"));
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 503) return say("The server cannot do this just now (503). Nothing was changed; try again in a moment.");
    say(status === 403 ? "The server refused this (403). Reload the page and try again." : `The server could not do this (${status}).`);
  });

  // Whoever is signed out meanwhile gets the page to sign in instead of a fragment.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const signIn = document.body.dataset.signIn;
    if (new URL(event.detail.xhr.responseURL, window.location).pathname !== signIn) return;
    event.detail.shouldSwap = false;
    if (event.target.id !== "chain") window.location.assign(signIn + "?next=" + encodeURIComponent(window.location.pathname));
  });

  document.addEventListener("htmx:afterSwap", () => {
    watch();
    localise(document);
  });

  // A page that the browser kept while another was looked at may be old.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload();
  });

  watch();
  localise(document);
})();
