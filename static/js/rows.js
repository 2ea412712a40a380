// Fields of several lines, chosen in rows. Who does what: client numbers or a share, a behaviour, its parameters, from
// which round to which. Detectors, and which score of one costs how much stake. Economies: a label, and what each does not
// take from the paying one. The text area holds the same, a line for each row; it is what is sent, and what is typed there
// shows as rows.
"use strict";

window.lineRows = (() => {
  const listed = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "[]");
  const BEHAVIOURS = listed("behaviour-kinds");
  const ECONOMY = listed("economy-fields");
  const AS_PAYING = "as the paying one";
  const OF = {
    shadows: { add: "Add an economy" },
    economy: { add: "Add an economy" },
    behaviours: { add: "Add a behaviour", kinds: BEHAVIOURS, does: "Does", who: "Clients", hint: "Client numbers, as in 3 or 1, 4-6", wide: true },
    population: { add: "Add a share", kinds: BEHAVIOURS, does: "Does", who: "Share, percent", hint: "Percent of the clients, drawn by the seed", wide: false },
    detectors: { add: "Add a detector", kinds: listed("detector-kinds"), does: "Detector", once: true },
    slashing: { add: "Add a threshold", kinds: listed("threshold-kinds"), does: "Detector" },
  };
  const MOST_ROWS = 100; // more lines than that stay text
  let made = 0; // elements, for ids of their own

  const element = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // What a line says; null where it says something that rows cannot show.
  const read = (name, line) => {
    const parts = name === "population" ? line.match(/^\s*([\d.]+)\s*(%?)\s(.*)$/) : OF[name].who ? line.match(/^([^:]*)():(.*)$/) : [line, "", "", line];
    const does = parts?.[3].match(/^\s*([^=]*?)((?:\s+[\w.]+\s*=\s*\S+)*)\s*$/);
    const kind = does && OF[name].kinds.find((each) => each.name === does[1].trim().split(/\s+/).join("_"));
    if (!kind) return null;
    const values = Object.fromEntries([...does[2].matchAll(/([\w.]+)\s*=\s*(\S+)/g)].map((found) => [found[1], found[2]]));
    const known = kind.fields.map((field) => field.name);
    if (Object.keys(values).some((each) => !known.includes(each))) return null;
    const share = parts[2] ? parts[1] : String(Number((100 * parts[1]).toPrecision(15)));
    return { who: name === "population" ? share : parts[1].trim(), kind: kind.name, values };
  };

  const isEconomy = (name) => name === "shadows" || name === "economy";

  // The same of an economy: its label, and what it says by field and by field.parameter.
  const readEconomy = (line) => {
    const text = line.trimEnd(), before = text.lastIndexOf(": ");
    const at = text.endsWith(":") ? text.length - 1 : before < 0 ? text.indexOf(":") : before;
    const values = {};
    for (const word of line.slice(at + 1).split(/\s+/).filter(Boolean)) {
      const found = word.match(/^([^=]+)=(.*)$/);
      if (!found) return null;
      values[found[1]] = found[2];
    }
    const isKnown = (full) => {
      const [name, parameter] = full.split(".");
      const field = ECONOMY.find((each) => each.name === name);
      if (!field) return false;
      if (!field.kinds) return parameter === undefined && (!field.words.length || field.words.some(([word]) => word === values[full]));
      const kind = field.kinds.find((each) => each.name === values[name]);
      return Boolean(kind) && (parameter === undefined || kind.fields.some((each) => each.name === parameter));
    };
    if (at < 0 || !line.slice(0, at).trim() || !Object.keys(values).every(isKnown)) return null;
    return { label: line.slice(0, at).trim(), values };
  };

  const write = (name, row) => {
    const raw = row.querySelector("[data-raw]");
    if (raw) return raw.value;
    if (isEconomy(name)) {
      const said = [...row.querySelectorAll("[data-field], [data-parameter]")]
        .map((field) => [field.dataset.field ?? field.dataset.parameter, field.value.replace(/\s+/g, ""), field.dataset.usual ?? ""])
        .filter(([, value, usual]) => value && value !== usual)
        .map(([each, value]) => ` ${each}=${value}`);
      return `${row.querySelector("[data-label]").value.trim()}:${said.join("")}`;
    }
    const who = row.querySelector("[data-who]")?.value.trim() ?? "";
    const after = { population: "% ", behaviours: ": " }[name] ?? "";
    const values = [...row.querySelectorAll("[data-parameter]")]
      .map((field) => [field.dataset.parameter, field.value.replace(/\s+/g, ""), field.dataset.usual])
      .filter(([, value, usual]) => value && value !== usual)
      .map(([each, value]) => ` ${each}=${value}`);
    return `${who}${after}${row.querySelector("[data-kind]").value}${values.join("")}`;
  };

  const labelled = (text, control, style, help) => {
    control.id = `row-${++made}`;
    if (help) control.title = help;
    return element("div", { class: `field ${style}` }, element("label", { for: control.id }, text), control);
  };

  const parameter = (field, values, full = field.name) => {
    const value = values[full] ?? field.value;
    const attributes = { "data-parameter": full, "data-usual": field.default };
    let control;
    if (field.choices.length) {
      control = element("select", attributes, ...field.choices.map(([each, label]) => element("option", { value: each }, label)));
    } else {
      control = element("input", { ...attributes, inputmode: field.mode, autocomplete: "off", placeholder: field.name === "to_round" ? "last" : field.optional ? "default" : null });
    }
    control.value = value;
    return labelled(field.label, control, "", field.bounds ? `${field.help}; ${field.bounds}` : field.help);
  };

  // What an economy may choose: a select, the parameters of its kind after it, or a number.
  const economyField = (field, values) => {
    const attributes = { "data-field": field.name };
    if (!field.kinds && !field.words.length) {
      const control = element("input", { ...attributes, inputmode: field.bounds === "without spaces" ? "text" : "decimal", autocomplete: "off", placeholder: AS_PAYING });
      control.value = values[field.name] ?? "";
      return [labelled(field.label, control, "field-economy", `${field.help}; ${field.bounds}${field.hint}`)];
    }
    const choices = field.kinds ? field.kinds.map((each) => [each.name, each.label, each.help]) : field.words;
    const options = choices.map(([value, label, help = null]) => element("option", { value, title: help }, label));
    const control = element("select", attributes, element("option", { value: "" }, AS_PAYING), ...options);
    control.value = values[field.name] ?? "";
    const chosen = labelled(field.label, control, "field-economy", field.help);
    const ofKind = () => field.kinds?.find((each) => each.name === control.value)?.fields ?? [];
    const parameters = (given) => ofKind().map((each) => parameter(each, given, `${field.name}.${each.name}`));
    control.addEventListener("change", () => {
      for (const each of chosen.parentElement.querySelectorAll(`[data-parameter^="${field.name}."]`)) each.parentElement.remove();
      chosen.after(...parameters({}));
    });
    return [chosen, ...parameters(values)];
  };

  // A row for what a line says, or for the line as it is where rows cannot show it.
  const makeRow = (name, line) => {
    const row = element("div", { class: "row-chosen", role: "group" });
    const remove = element("button", { type: "button", class: "button", "data-remove": "" }, "Remove");
    const said = isEconomy(name) ? readEconomy(line) : read(name, line);
    if (!said) {
      const raw = element("input", { "data-raw": "", autocomplete: "off", spellcheck: "false" });
      raw.value = line;
      row.append(labelled("A line of its own", raw, "field-raw"), remove);
      return row;
    }
    if (isEconomy(name)) {
      const label = element("input", { "data-label": "", autocomplete: "off", maxlength: "60" });
      label.value = said.label;
      row.append(labelled("Label", label, "field-economy", "How it is called"), ...ECONOMY.flatMap((field) => economyField(field, said.values)), remove);
      return row;
    }
    const choice = OF[name];
    if (choice.who) {
      const who = element("input", { "data-who": "", autocomplete: "off", inputmode: choice.wide ? "text" : "decimal" });
      who.value = said.who;
      row.append(labelled(choice.who, who, "field-who", choice.hint));
    }
    const kind = element("select", { "data-kind": "" }, ...choice.kinds.map((each) => element("option", { value: each.name, title: each.help }, each.label)));
    kind.value = said.kind;
    const ofKind = (values) => choice.kinds.find((each) => each.name === kind.value).fields.map((field) => parameter(field, values));
    row.append(labelled(choice.does, kind, "field-kind"), ...ofKind(said.values), remove);
    kind.addEventListener("change", () => {
      // What bounds the rounds, and what another kind calls the same, stays as it was entered.
      const before = [...row.querySelectorAll("[data-parameter]")].filter((field) => field.value !== field.dataset.usual);
      const values = Object.fromEntries(before.map((field) => [field.dataset.parameter, field.value]));
      for (const field of row.querySelectorAll("[data-parameter]")) field.parentElement.remove();
      remove.before(...ofKind(values));
    });
    return row;
  };

  const numbers = (text) => text.split(",").map((part) => part.split("-").map(Number));

  // The row that an error speaks of, and of its fields the one.
  const blame = (rows, error, lines) => {
    const line = error.match(/^line (\d+):/);
    const entry = error.match(/^(?:entry|number) (\d+):/);
    const client = error.match(/^client (\d+)/);
    const labelledSo = rows.find((row) => row.querySelector("[data-label]") && error.startsWith(`${row.querySelector("[data-label]").value.trim()}: `));
    const holds = (row) => numbers(row.querySelector("[data-who]")?.value ?? "").some(([first, last = first]) => first <= client[1] && client[1] <= last);
    const ofKind = rows.findLast((row) => !row.querySelector("[data-who]") && error.startsWith(`${row.querySelector("[data-kind]")?.value}`));
    const row = labelledSo ?? ofKind ?? (line ? rows[lines.indexOf(Number(line[1]))] : entry ? rows[entry[1] - 1] : client ? rows.find(holds) : rows.at(-1));
    if (!row) return [];
    if (row.querySelector("[data-label]")) {
      const fields = [...row.querySelectorAll("[data-parameter], [data-field]")];
      const names = (field) => field.dataset.parameter ?? field.dataset.field;
      const speaksOf = fields.filter((field) => error.includes(`${names(field)}:`)).sort((a, b) => names(b).length - names(a).length);
      return [row, speaksOf[0] ?? row.querySelector("[data-label]")];
    }
    const named = error.match(/: (\w+):? /)?.[1];
    return [row, row.querySelector(`[data-parameter="${named}"]`) ?? row.querySelector("input, select")];
  };

  const setUp = (field) => {
    if ("ready" in field.dataset) return;
    field.dataset.ready = "";
    const name = field.dataset.rowsOf;
    const most = Number(field.dataset.most) || Infinity;
    const text = field.querySelector("textarea");
    const error = field.querySelector(".error");
    const chooser = element("div", { class: "row-chooser", role: "group", "aria-labelledby": field.querySelector("label").id });
    const list = element("div", { class: "contents" });
    const add = element("button", { type: "button", class: "button" });
    const asText = element("button", { type: "button", class: "note link min-h-6", "aria-expanded": "false", "aria-controls": text.id }, "as text");
    const typed = element("div", { class: "flex flex-col gap-1", hidden: "" });
    const rows = () => [...list.querySelectorAll(".row-chosen")];

    const count = () => {
      rows().forEach((row, place) => row.setAttribute("aria-label", `Row ${place + 1}`));
      add.textContent = rows().length ? "Add another" : OF[name].add;
      add.hidden = rows().length >= most || list.dataset.long === "";
    };
    const tell = () => {
      text.value = rows().map((row) => write(name, row)).join("\n");
      count();
    };
    // The form hears of what a button changed as of what is typed.
    const changed = () => {
      tell();
      list.dispatchEvent(new Event("change", { bubbles: true }));
    };
    const open = (shown) => {
      typed.hidden = !shown;
      asText.setAttribute("aria-expanded", String(shown));
    };
    const show = () => {
      const lines = text.value.split("\n");
      const full = lines.map((line, place) => (line.trim() ? place + 1 : 0)).filter(Boolean);
      const isLong = full.length > MOST_ROWS;
      const note = element("p", { class: "note" }, `${full.length} lines, which are more than rows can show.`);
      list.replaceChildren(...(isLong ? [note] : full.map((place) => makeRow(name, lines[place - 1]))));
      if (most === 1) for (const button of list.querySelectorAll("[data-remove]")) button.hidden = true;
      if (isLong) list.dataset.long = "";
      else delete list.dataset.long;
      if (isLong) open(true);
      count();
      return full;
    };

    list.addEventListener("input", tell);
    list.addEventListener("change", (event) => event.target !== list && tell());
    text.addEventListener("input", show);
    const anEconomy = () => {
      const labels = rows().map((row) => row.querySelector("[data-label]")?.value.trim());
      let place = rows().length + 1;
      while (labels.includes(`economy ${place}`)) place += 1;
      return `economy ${place}:`;
    };
    const another = () => {
      if (isEconomy(name)) return anEconomy();
      const chosen = rows().map((row) => row.querySelector("[data-kind]")?.value);
      const kind = (OF[name].kinds.find((each) => !OF[name].once || !chosen.includes(each.name)) ?? OF[name].kinds[0]).name;
      if (name === "population") return `10% ${kind}`;
      if (!OF[name].who) return kind;
      const taken = rows().flatMap((row) => numbers(row.querySelector("[data-who]")?.value ?? ""));
      let free = 1;
      while (taken.some(([first, last = first]) => first <= free && free <= last)) free += 1;
      return `${free}: ${kind}`;
    };
    add.addEventListener("click", () => {
      list.append(makeRow(name, another()));
      changed();
      rows().at(-1).querySelector("input, select").focus();
    });
    list.addEventListener("click", (event) => {
      const row = event.target.closest("[data-remove]")?.closest(".row-chosen");
      if (!row) return;
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      changed();
      (next?.querySelector("[data-remove]") ?? add).focus();
    });
    asText.addEventListener("click", () => {
      open(typed.hidden);
      if (!typed.hidden) text.focus();
    });

    chooser.append(list, element("div", { class: "flex items-center gap-4" }, add, asText));
    field.querySelector("label").after(chooser, ...(error ? [error] : []), typed);
    typed.append(text, document.getElementById(`syntax-${text.id.replace("field-", "")}`));
    text.showRows = show;
    const lines = show();
    if (error) {
      const [row, wrong] = blame(rows(), error.textContent, lines);
      wrong?.setAttribute("aria-invalid", "true");
      wrong?.setAttribute("aria-describedby", error.id);
      row?.after(error);
    }
  };

  // A form that is not the one that starts a simulation: set up by itself, and again when it comes back.
  const others = () => document.querySelectorAll("form:not(#start) [data-rows-of]").forEach(setUp);
  document.addEventListener("htmx:afterSwap", (event) => {
    others();
    if (event.detail.requestConfig?.elt.closest("#reprice") && event.detail.xhr.status >= 400)
      [...document.querySelectorAll("#reprice [aria-invalid]")].find((field) => field.offsetParent)?.focus();
  });
  others();

  return {
    // Of a form that has just come.
    setUp: (form) => form.querySelectorAll("[data-rows-of]").forEach(setUp),
    // After its texts were filled in.
    show: (form) => form.querySelectorAll("[data-rows-of] textarea").forEach((text) => text.showRows()),
  };
})();
