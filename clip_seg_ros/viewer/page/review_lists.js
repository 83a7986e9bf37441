// SPDX-License-Identifier: Apache-2.0
// The lists of the review's page: images, the objects of one, what is shown, and what was decided.

const THUMB_PX = 320;
const MOST_DECISIONS = 50;

function element(kind, text = "", name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

export class ImageList {
  /** Asks for pages of the list by `ask(message)`, and calls `onChosen(image)`. */
  constructor(list, place, earlier, later, ask, onChosen) {
    Object.assign(this, { list, place, earlier, later, ask, onChosen });
    this.images = [];
    this.first = this.count = 0;
    this.chosen = null;
    this.asked = 0;
  }

  /** Shows the images that are wished for; returns false, and leaves all as it is, if there are none beyond. */
  async load(wish) {
    const number = ++this.asked;
    const answer = await this.ask({ ask: "images", ...wish });
    if (number !== this.asked) return true;
    if (!answer.images.length && (wish.after ?? wish.before) !== undefined) return false;
    ({ images: this.images, first: this.first, count: this.count } = answer);
    this.list.replaceChildren(...this.images.map((each) => this.item(each)));
    const last = this.first + this.images.length;
    this.place.textContent = this.count ? `Images ${this.first + 1} to ${last} of ${this.count}` : "No images";
    this.earlier.disabled = this.first === 0;
    this.later.disabled = last >= this.count;
    return true;
  }

  /** Loads the same images again, because any of them may have changed. */
  async refresh(wish) {
    if (wish.undecided) {
      // Others would take their places under the hands of whoever looks.
      this.update(await this.ask({ ask: "listed", images: this.images.map(({ image }) => image) }));
      return;
    }
    await this.load({ ...wish, first: this.first });
    this.choose(this.chosen, false);
  }

  item(each) {
    const button = element("button");
    button.type = "button";
    button.dataset.image = each.image;
    const picture = element("img");
    picture.loading = "lazy";
    button.append(picture, element("span"));
    button.addEventListener("click", () => this.onChosen(each.image));
    this.fill(button, each);
    const item = element("li");
    item.append(button);
    return item;
  }

  fill(button, each) {
    const [picture, text] = button.children;
    const address = `/picture?image=${each.image}&version=${each.version}&width=${THUMB_PX}`;
    if (picture.getAttribute("src") !== address) picture.setAttribute("src", address);
    picture.alt = "";
    text.textContent = each.decided ? `✓ ${each.name}` : `${each.name}, doubt ${each.doubt.toFixed(2)}`;
    button.dataset.decided = String(each.decided);
  }

  update(touched) {
    for (const each of touched) {
      const at = this.images.findIndex(({ image }) => image === each.image);
      if (at < 0) continue;
      this.images[at] = each;
      this.fill(this.list.children[at].firstChild, each);
    }
  }

  choose(image, scrolls = true) {
    this.chosen = image;
    for (const { firstChild: button } of this.list.children) {
      const is = Number(button.dataset.image) === image;
      button.setAttribute("aria-current", String(is));
      if (is && scrolls) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  /** The image after or before another one on this page; null at its ends. */
  beside(image, step) {
    const at = this.images.findIndex((each) => each.image === image);
    return this.images[at < 0 ? -1 : at + step]?.image ?? null;
  }

  /** The place of this page, to ask for it again. */
  here() {
    return this.images.length ? { at: this.images[0].image } : {};
  }

  /** The place of the page after or before this one. What was decided meanwhile may be listed no more, so that places
   * are named by images and not by counting. */
  beyond(step) {
    if (!this.images.length) return {};
    return step > 0 ? { after: this.images.at(-1).image } : { before: this.images[0].image };
  }
}

export class ObjectList {
  /** Calls `onChosen(number)`. */
  constructor(list, nothing, onChosen) {
    Object.assign(this, { list, nothing, onChosen });
  }

  show(objects, chosen) {
    const hadFocus = this.list.contains(document.activeElement);
    this.list.replaceChildren(...objects.map((each) => this.item(each, each.number === chosen)));
    this.nothing.hidden = objects.length > 0;
    if (hadFocus) this.list.querySelector("[aria-pressed=true]")?.focus();
  }

  item(each, isChosen) {
    const button = element("button");
    button.type = "button";
    button.dataset.state = each.state;
    button.setAttribute("aria-pressed", String(isChosen));
    const swatch = element("span", "", "swatch");
    swatch.style.background = `rgb(${each.color.join(",")})`;
    const name = each.track ? `${each.prompt} #${each.track}` : each.prompt;
    button.append(swatch, element("span", name, "prompt"));
    button.append(element("span", each.state === "guessed" ? each.score.toFixed(2) : each.state, "word"));
    button.addEventListener("click", () => this.onChosen(each.number));
    const item = element("li");
    item.append(button);
    return item;
  }
}

export class Wishes {
  /** Calls `onChange()` when others are wished for. */
  constructor(form, onChange) {
    this.form = form;
    form.addEventListener("change", onChange);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  fill({ phrases, sources, reasons }) {
    const fill = (select, all, names) => {
      const { value } = select;
      select.replaceChildren(new Option(all, ""), ...names.map((name) => new Option(name, name)));
      if (names.includes(value)) select.value = value;
    };
    fill(this.form.querySelector("#wish-phrase"), "all phrases", phrases.map(({ name }) => name)); // prettier-ignore
    fill(this.form.querySelector("#wish-source"), "all sources", sources);
    fill(this.form.querySelector("#wish-reason"), "any or none", reasons);
  }

  value() {
    const of = (name) => this.form.querySelector(`#wish-${name}`);
    return {
      phrase: of("phrase").value,
      source: of("source").value,
      reason: of("reason").value,
      undecided: of("undecided").checked,
    };
  }
}

export class Log {
  constructor(list) {
    this.list = list;
  }

  add({ by, words }, mine) {
    const item = element("li");
    item.append(element("b", mine ? "You" : by), ` ${words}`);
    this.list.prepend(item);
    while (this.list.children.length > MOST_DECISIONS) this.list.lastChild.remove();
  }
}
