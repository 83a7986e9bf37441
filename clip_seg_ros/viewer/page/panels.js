// SPDX-License-Identifier: Apache-2.0
// The list of objects, the settings, the models and the health.

const FORGOTTEN_MS = 10000;
const WIDE = 10000; // whole numbers of a wider range are typed, because a slider cannot hit them
const STEPS = 500; // of a slider, at least

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export class Things {
  /** Calls `onChosen(thing)`. */
  constructor(table, nothing, frame, onChosen) {
    Object.assign(this, { body: table.tBodies[0], head: table.tHead, nothing, frame, onChosen });
    this.rows = new Map();
    this.shown = new Set(); // those of the newest picture, which may stand for long
    setInterval(() => this.age(), 500);
  }

  show(header) {
    const now = performance.now();
    this.shown.clear();
    for (const thing of header.things) {
      const key = `${thing.prompt} ${thing.id}`;
      this.shown.add(key);
      const row = this.rows.get(key) ?? this.add(key);
      row.thing = thing;
      row.seen = now;
      row.swatch.style.background = `rgb(${thing.color.join(",")})`;
      row.name.textContent = `${thing.prompt} #${thing.id}`;
      row.score.textContent = thing.score.toFixed(2);
      row.place.textContent = thing.position_m ? thing.position_m.map((value) => value.toFixed(3)).join(", ") : "–";
    }
    const prompts = new Set(header.prompts);
    for (const [key, row] of this.rows) if (!prompts.has(row.thing.prompt)) this.remove(key);
    this.frame.textContent = header.things.some((thing) => thing.position_m) ? `(x, y, z in m, ${header.frame})` : "";
    this.age();
  }

  add(key) {
    const row = { swatch: element("span", { className: "swatch" }), name: element("span") };
    const button = element("button", { type: "button", title: "Show it" }, row.swatch, row.name);
    Object.assign(row, { score: element("td"), place: element("td"), since: element("td") });
    row.line = element("tr", {}, element("td", {}, button), row.score, row.place, row.since);
    button.addEventListener("click", () => this.onChosen(row.thing));
    this.body.append(row.line);
    this.rows.set(key, row);
    return row;
  }

  remove(key) {
    this.rows.get(key).line.remove();
    this.rows.delete(key);
  }

  age() {
    const now = performance.now();
    for (const [key, row] of this.rows) {
      const past = now - row.seen;
      if (past > FORGOTTEN_MS && !this.shown.has(key)) {
        this.remove(key);
        continue;
      }
      row.line.classList.toggle("past", past > 1000);
      row.since.textContent = past > 1000 ? `${Math.round(past / 1000)} s ago` : "now";
    }
    this.nothing.hidden = this.rows.size > 0;
    this.head.hidden = this.rows.size === 0;
  }

  clear() {
    this.shown.clear();
    for (const key of [...this.rows.keys()]) this.remove(key);
    this.age();
  }
}

export class Settings {
  /** Calls `set(name, value)`, which returns a promise. */
  constructor(form, set) {
    Object.assign(this, { form, set });
    this.controls = new Map();
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  show(parameters) {
    this.controls.clear();
    // The model has a panel of its own.
    const others = parameters.filter(({ name }) => name !== "model");
    this.form.replaceChildren(...others.map((parameter) => this.control(parameter)));
  }

  control(parameter) {
    const output = element("output");
    const why = element("span", { className: "why", role: "alert" });
    const input = this.input(parameter);
    const read = () => {
      if (input.type === "checkbox") return input.checked;
      if (parameter.kind === "tuple") {
        const parts = input.value.split(",").map((text) => text.trim());
        return parts.filter((text) => text !== "");
      }
      return parameter.kind === "str" ? input.value : Number(input.value);
    };
    const write = (value) => {
      if (input.type === "checkbox") input.checked = value;
      else input.value = Array.isArray(value) ? value.join(", ") : value;
      output.value = input.type === "range" ? input.value : "";
    };
    input.addEventListener("input", () => {
      if (input.type === "range") output.value = input.value;
    });
    input.addEventListener("change", async () => {
      why.textContent = "";
      try {
        await this.set(parameter.name, read());
      } catch (error) {
        why.textContent = error.message;
        write(this.controls.get(parameter.name).value);
      }
    });
    this.controls.set(parameter.name, { write, value: parameter.value });
    write(parameter.value);
    const isBox = input.type === "checkbox";
    input.id = `parameter-${parameter.name}`;
    const about = element("p", { id: `about-${parameter.name}` }, parameter.description);
    input.setAttribute("aria-describedby", about.id);
    const label = element("label", { htmlFor: input.id }, parameter.name);
    const more = element("details", {}, element("summary", {}, "What it does"), about);
    return element("div", { className: "parameter" }, label, ...(isBox ? [input] : [output, input]), why, more);
  }

  input({ name, kind, low, high, choices, value }) {
    if (kind === "bool") return element("input", { type: "checkbox", name });
    if (choices.length) {
      const options = [...new Set([...choices, value])].map((choice) => element("option", { value: choice }, choice));
      return element("select", { name }, ...options);
    }
    if (kind === "float" || kind === "int") {
      // A power of ten, so that a slider can stand on every round value.
      const step = kind === "int" ? 1 : 10 ** Math.floor(Math.log10((high - low) / STEPS));
      const type = low === null || high - low > WIDE ? "number" : "range";
      return element("input", { type, name, min: low ?? "", max: high ?? "", step });
    }
    return element("input", { type: "text", name });
  }

  /** Takes the new value of a parameter, whoever changed it. */
  changed(name, value) {
    const control = this.controls.get(name);
    if (!control) return;
    control.value = value;
    control.write(value);
  }
}

export class Models {
  /** Calls `use(name)`. */
  constructor(form, select, about, name, progress, use) {
    Object.assign(this, { form, select, about, name, progress, use });
    this.models = new Map();
    select.addEventListener("change", () => this.tell());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.use(select.value);
    });
  }

  show(models) {
    this.models = new Map(models.map((model) => [model.name, model]));
    this.select.replaceChildren(...models.map(({ name }) => element("option", { value: name }, name)));
    if (this.models.has(this.name.textContent)) this.select.value = this.name.textContent;
    this.tell();
  }

  serves(name) {
    this.name.textContent = name;
    if (this.models.has(name)) this.select.value = name;
    this.progress.hidden = true;
    this.tell();
  }

  tell() {
    const model = this.models.get(this.select.value);
    if (!model) return;
    const where = model.is_here ? "on this machine" : "is downloaded when it is used";
    const page = model.page ? ` · ${model.page}` : "";
    this.about.textContent = `${model.licence} · ${model.megabytes} MB · ${where}${page}`;
  }

  /** Takes a status of "use ..."; "603 of 603 MB" or "12 of about 603 MB" in it is progress. */
  progressed(event) {
    if (!event.command.startsWith("use ")) return;
    const parts = event.message.match(/([\d.]+) of (?:about )?([\d.]+) MB/);
    this.progress.hidden = event.state !== "accepted";
    if (parts) this.progress.value = Number(parts[1]) / Number(parts[2]);
    else this.progress.removeAttribute("value");
  }
}

export class Health {
  constructor(light, level, values) {
    Object.assign(this, { light, level, values });
  }

  show(event) {
    this.light.dataset.level = event.level;
    const words = { ok: "all is well", warn: "look here", error: "something is wrong" };
    this.level.textContent = event.message || words[event.level];
    const rows = Object.entries(event.values).flatMap(([key, value]) => [
      element("dt", {}, key),
      element("dd", {}, String(value)),
    ]);
    this.values.replaceChildren(...rows);
  }
}
