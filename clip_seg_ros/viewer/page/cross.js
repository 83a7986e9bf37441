// SPDX-License-Identifier: Apache-2.0
// Pointing at the picture with the keyboard: a cross that arrow keys move, and a box that they open with Shift.

const SVG = "http://www.w3.org/2000/svg";
const STEPS = 50; // from one side of the picture to the other; with Ctrl, one pixel
const ARM = 0.03; // half the length of the cross, of the picture's height
const SAID_AFTER_MS = 400;
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Cross {
  /** Asks `look()` for the header of the picture that is shown, or null, and calls `onSpot(spot)` at Enter. */
  constructor(canvas, drawing, place, look, onSpot) {
    Object.assign(this, { canvas, drawing, place, look, onSpot });
    this.spot = null; // (x, y), in parts of the picture's size
    this.corner = null; // the other corner of a box
    this.saying = 0;
    this.clicked = false; // since then there are no keys: whoever clicks needs no cross
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => {
      this.clicked = false;
      this.draw();
    });
    canvas.addEventListener("pointerdown", () => {
      this.clicked = true;
      this.forget();
    });
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  /** Forgets where it was; it begins in the middle again. */
  forget() {
    this.spot = this.corner = null;
    this.draw();
  }

  press(event) {
    const header = this.look();
    if (header === null || event.altKey || event.metaKey) return;
    if (event.key === "Escape") this.corner = null;
    else if (event.key === "Enter") this.onSpot(this.pixels(header));
    else if (WAYS[event.key]) this.move(WAYS[event.key], event, header.size_px);
    else return;
    if (event.key !== "Escape") event.preventDefault();
    this.clicked = false;
    this.draw();
    this.say();
  }

  move([right, down], { shiftKey, ctrlKey }, [width, height]) {
    const before = this.spot ?? [0.5, 0.5];
    this.corner = shiftKey ? (this.corner ?? before) : null;
    const step = ctrlKey ? 1 : width / STEPS;
    const inside = (value) => Math.min(Math.max(value, 0), 1);
    this.spot = [inside(before[0] + (right * step) / width), inside(before[1] + (down * step) / height)];
  }

  /** Where it is in pixels of the image: a point, or the corners of a box. */
  pixels({ size_px: [width, height] }) {
    const [x, y] = this.spot ?? [0.5, 0.5];
    if (this.corner === null) return [Math.min(x * width, width - 1), Math.min(y * height, height - 1)];
    const [x0, x1] = [x, this.corner[0]].sort((a, b) => a - b);
    const [y0, y1] = [y, this.corner[1]].sort((a, b) => a - b);
    return [x0 * width, y0 * height, x1 * width, y1 * height];
  }

  draw() {
    const header = this.look();
    if (header === null || this.clicked || !this.canvas.matches(":focus-visible")) {
      this.drawing.replaceChildren();
      return;
    }
    const [width, height] = header.size_px;
    const [x, y] = (this.spot ?? [0.5, 0.5]).map((part, axis) => part * header.size_px[axis]);
    const arm = ARM * height;
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("d", `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.replaceChildren(line);
    if (this.corner === null) return;
    const [x0, y0, x1, y1] = this.pixels(header);
    const box = document.createElementNS(SVG, "path");
    box.setAttribute("d", `M${x0} ${y0}H${x1}V${y1}H${x0}Z`);
    this.drawing.append(box);
  }

  /** Tells those who do not see it where it is, once it stands still. */
  say() {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => {
      const header = this.look();
      if (header === null || !this.canvas.matches(":focus")) return;
      const spot = this.pixels(header).map(Math.round);
      if (spot.length === 4) {
        this.place.textContent = `box from ${spot[0]}, ${spot[1]} to ${spot[2]}, ${spot[3]}`;
        return;
      }
      const here = header.things.filter(({ box_px: [x0, y0, x1, y1] }) => {
        return x0 <= spot[0] && spot[0] < x1 && y0 <= spot[1] && spot[1] < y1;
      });
      const names = here.map((thing) => thing.prompt).join(", ");
      this.place.textContent = `${spot[0]}, ${spot[1]}${names ? `: ${names}` : ""}`;
    }, SAID_AFTER_MS);
  }
}
