// SPDX-License-Identifier: Apache-2.0
// The command line: history with the arrow keys, suggestions, and the answers to commands.

const KEPT = 100;
const MOST_SUGGESTIONS = 6;
const MOST_ANSWERS = 100;
const BEGINNINGS = [
  "segment the ",
  "find the ",
  "how many ",
  "where did you last see the ",
  "what do you see?",
  "what have you seen?",
];
const STORE = "clip_seg_ros commands";

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? [];
  } catch {
    return [];
  }
}

export class CommandLine {
  /** Calls `send(text)`, which returns a promise. */
  constructor(form, input, list, status, answers, send) {
    Object.assign(this, { form, input, list, status, answers, send });
    this.history = stored();
    this.place = this.history.length;
    this.phrases = new Set();
    this.isTyped = false; // only then Tab takes a suggestion, and does not move on
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.give(this.input.value);
    });
    input.addEventListener("keydown", (event) => this.key(event));
    input.addEventListener("input", () => {
      this.isTyped = true;
      this.suggest();
    });
    input.addEventListener("focus", () => this.suggest());
    input.addEventListener("blur", () => this.hide());
  }

  async give(text) {
    text = text.trim();
    if (!text) return;
    if (this.history.at(-1) !== text) this.history.push(text);
    this.history = this.history.slice(-KEPT);
    try {
      localStorage.setItem(STORE, JSON.stringify(this.history));
    } catch {
      // A private window keeps nothing.
    }
    this.place = this.history.length;
    this.input.value = "";
    this.hide();
    this.say("", `“${text}” ...`);
    try {
      await this.send(text);
    } catch (error) {
      this.say("failed", error.message);
    }
  }

  key(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step) {
      event.preventDefault();
      this.place = Math.min(Math.max(this.place + step, 0), this.history.length);
      this.input.value = this.history[this.place] ?? "";
      this.input.setSelectionRange(this.input.value.length, this.input.value.length);
    } else if (event.key === "Tab" && !event.shiftKey && !this.list.hidden && this.isTyped) {
      event.preventDefault();
      this.take(this.list.firstChild.textContent);
    } else if (event.key === "Escape") {
      this.hide();
    }
  }

  learn(phrases) {
    for (const phrase of phrases) this.phrases.add(phrase);
  }

  suggest() {
    const typed = this.input.value;
    const low = typed.toLowerCase();
    const known = [...this.phrases];
    const earlier = [...new Set([...this.history].reverse())];
    // The last word that is begun may be a phrase that was found before.
    const begin = low.match(/^(.*\b(?:the|a|an|many|my)\s+)(.*)$/);
    const completed = begin
      ? known.filter((phrase) => phrase.startsWith(begin[2])).map((phrase) => typed.slice(0, begin[1].length) + phrase)
      : [];
    const all = [...completed, ...earlier, ...BEGINNINGS, ...known.map((phrase) => `segment the ${phrase}`)];
    const fitting = [...new Set(all)].filter((text) => text.toLowerCase().startsWith(low) && text !== typed);
    this.list.replaceChildren(
      ...fitting.slice(0, MOST_SUGGESTIONS).map((text, index) => {
        const item = document.createElement("li");
        item.role = "option";
        item.id = `suggestion-${index}`;
        item.ariaSelected = String(index === 0);
        item.textContent = text;
        // A click would come after the input has lost the focus, and the list is gone.
        item.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          this.take(text);
        });
        return item;
      }),
    );
    this.list.hidden = fitting.length === 0;
    this.input.ariaExpanded = String(!this.list.hidden);
    if (this.list.hidden) this.input.removeAttribute("aria-activedescendant");
    else this.input.setAttribute("aria-activedescendant", "suggestion-0");
  }

  take(text) {
    this.input.value = text;
    this.suggest();
    this.isTyped = !this.list.hidden;
  }

  hide() {
    this.isTyped = false;
    this.list.hidden = true;
    this.input.removeAttribute("aria-activedescendant");
    this.input.ariaExpanded = "false";
  }

  say(state, text) {
    this.status.className = state.replace(" ", "-");
    this.status.textContent = text;
  }

  /** Takes a status of a command of anybody. */
  answered(event) {
    const text = event.message ? `${event.state}: ${event.message}` : event.state;
    this.say(event.state, text);
    if (event.state !== "rejected") this.learn(event.prompts);
    const item = document.createElement("li");
    const command = document.createElement("b");
    command.textContent = event.command;
    const said = document.createElement("span");
    said.className = event.state.replace(" ", "-");
    said.textContent = ` ${text}`;
    item.append(command, said);
    const isBelow = this.answers.scrollTop + this.answers.clientHeight > this.answers.scrollHeight - 8;
    this.answers.append(item);
    while (this.answers.children.length > MOST_ANSWERS) this.answers.firstChild.remove();
    if (isBelow) this.answers.scrollTop = this.answers.scrollHeight;
  }
}
