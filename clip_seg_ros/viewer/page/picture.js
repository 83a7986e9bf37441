// SPDX-License-Identifier: Apache-2.0
// The picture: draws what comes, says so to the server, and takes clicks and boxes.

const SVG = "http://www.w3.org/2000/svg";
const DRAG_PX = 6; // below it, a press and a release are a click
const DESCRIBED_EVERY_MS = 1000;

export class Picture {
  /**
   * Calls `onDrawn(header)` once a picture is on the screen, `onSkipped(header)` if it never will be although no newer
   * one is, and `onSpot(spot)` with pixels of the image.
   */
  constructor(canvas, marks, waiting, onDrawn, onSkipped, onSpot) {
    this.onSkipped = onSkipped;
    this.canvas = canvas;
    this.marks = marks;
    this.waiting = waiting;
    this.onDrawn = onDrawn;
    this.onSpot = onSpot;
    this.context = canvas.getContext("2d", { alpha: false });
    this.header = null;
    this.next = null;
    this.boxes = false;
    this.era = 0; // raised by clear(), so that nothing of before is drawn
    this.describing = 0;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
  }

  async show(header, jpeg) {
    const { era } = this;
    const bitmap = await createImageBitmap(jpeg);
    if (era !== this.era) {
      bitmap.close();
      this.onSkipped(header);
      return;
    }
    const isPlanned = this.next !== null;
    this.next?.bitmap.close();
    this.next = { header, bitmap };
    if (!isPlanned) requestAnimationFrame(() => this.draw());
  }

  draw() {
    if (this.next === null) return;
    const { header, bitmap } = this.next;
    this.next = null;
    if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height) {
      this.canvas.width = bitmap.width;
      this.canvas.height = bitmap.height;
      this.canvas.parentElement.style.setProperty("--ratio", bitmap.width / bitmap.height);
    }
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    this.header = header;
    this.waiting.hidden = true;
    this.marks.setAttribute("viewBox", `0 0 ${header.size_px[0]} ${header.size_px[1]}`);
    this.describe();
    // The next frame begins when this one is on the screen.
    requestAnimationFrame(() => this.onDrawn(header));
  }

  /** Tells in words what the picture shows, now and then. */
  describe() {
    if (this.describing) return;
    this.describing = setTimeout(() => {
      this.describing = 0;
      if (this.header === null) return;
      const things = this.header.things.map((thing) => `${thing.prompt}, score ${thing.score}`);
      const name = this.header.camera || "camera";
      this.canvas.setAttribute("aria-label", `Picture of ${name}: ${things.join("; ") || "nothing found"}`);
    }, DESCRIBED_EVERY_MS);
  }

  clear(text) {
    this.era += 1;
    if (this.next !== null) {
      this.next.bitmap.close();
      this.onSkipped(this.next.header);
      this.next = null;
    }
    this.header = null;
    this.waiting.textContent = text;
    this.waiting.hidden = false;
    this.mark([]);
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.canvas.setAttribute("aria-label", text);
  }

  /** Draws outlines, lists of (x, y) in pixels of the image. */
  mark(outlines) {
    this.marks.replaceChildren(
      ...outlines.map((points) => {
        const polygon = document.createElementNS(SVG, "polygon");
        polygon.setAttribute("points", points.map((point) => point.join(",")).join(" "));
        return polygon;
      }),
    );
  }

  place(event) {
    const frame = this.canvas.getBoundingClientRect();
    const [width, height] = this.header.size_px;
    const inside = (value, size) => Math.min(Math.max(value, 0), size - 1);
    return [
      inside(((event.clientX - frame.left) / frame.width) * width, width),
      inside(((event.clientY - frame.top) / frame.height) * height, height),
    ];
  }

  press(down) {
    if (this.header === null || down.button !== 0) return;
    const canDrag = this.boxes || down.pointerType === "mouse";
    const begin = this.place(down);
    const far = (event) => Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) > DRAG_PX;
    const corners = (event) => {
      const end = this.place(event);
      const [x0, x1] = [begin[0], end[0]].sort((a, b) => a - b);
      const [y0, y1] = [begin[1], end[1]].sort((a, b) => a - b);
      return [x0, y0, x1, y1];
    };
    const over = new AbortController();
    const listen = (kind, take) => {
      const takeOwn = (event) => {
        if (event.pointerId === down.pointerId) take(event);
      };
      this.canvas.addEventListener(kind, takeOwn, { signal: over.signal });
    };
    listen("pointermove", (event) => {
      if (!canDrag || !far(event) || this.header === null) return;
      const [x0, y0, x1, y1] = corners(event);
      this.mark([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]]); // prettier-ignore
    });
    listen("pointercancel", () => over.abort());
    listen("pointerup", (event) => {
      over.abort();
      if (this.header === null) return;
      if (!far(event)) this.onSpot(begin);
      else if (canDrag) this.onSpot(corners(event));
    });
    if (canDrag) {
      down.preventDefault();
      this.canvas.setPointerCapture(down.pointerId);
    }
  }

  /** With boxes on, a finger draws a box instead of moving the page. */
  drawBoxes(on) {
    this.boxes = on;
    this.canvas.style.touchAction = on ? "none" : "auto";
  }
}
