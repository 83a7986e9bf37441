// SPDX-License-Identifier: Apache-2.0
// Latency and best score of the last minute.

const SPAN_MS = 60000;
const DRAWN_EVERY_MS = 500;

export class Graph {
  constructor(canvas, rates) {
    this.canvas = canvas;
    this.rates = rates;
    this.points = [];
    setInterval(() => this.draw(), DRAWN_EVERY_MS);
  }

  add(latencyMs, score, screenMs) {
    this.points.push({ at: performance.now(), latencyMs, score, screenMs });
  }

  draw() {
    if (document.hidden) return;
    const now = performance.now();
    this.points = this.points.filter((point) => now - point.at < SPAN_MS);
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--faint");
    const top = Math.max(50, 1.2 * Math.max(0, ...this.points.map((point) => point.latencyMs ?? 0)));
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = ink;
    context.fillText(`${Math.round(top)} ms`, 2, 11);
    context.textAlign = "right";
    context.fillText("score 1", width - 2, 11);
    this.line(context, now, width, height, style.getPropertyValue("--accent"), [], (point) =>
      point.latencyMs === null ? null : point.latencyMs / top,
    );
    this.line(context, now, width, height, style.getPropertyValue("--warn"), [5, 3], (point) => point.score);
    this.tell(now);
  }

  line(context, now, width, height, color, dash, share) {
    context.strokeStyle = color;
    context.setLineDash(dash);
    context.lineWidth = 1.5;
    context.beginPath();
    let isDown = false;
    for (const point of this.points) {
      const value = share(point);
      if (value === null) {
        isDown = false;
        continue;
      }
      const x = width * (1 - (now - point.at) / SPAN_MS);
      const y = 14 + (height - 16) * (1 - value);
      if (isDown) context.lineTo(x, y);
      else context.moveTo(x, y);
      isDown = true;
    }
    context.stroke();
  }

  tell(now) {
    const recent = this.points.filter((point) => now - point.at < 5000);
    const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
    const latencies = recent.map((point) => point.latencyMs).filter((value) => value !== null);
    const screens = recent.map((point) => point.screenMs).filter((value) => value !== null);
    const parts = [`${(recent.length / 5).toFixed(1)} pictures a second`];
    if (latencies.length) parts.push(`answered after ${middle(latencies).toFixed(0)} ms (solid)`);
    if (screens.length) parts.push(`on the screen ${middle(screens).toFixed(0)} ms after they arrived`);
    parts.push("best score dashed");
    this.rates.textContent = parts.join(" · ");
    this.canvas.setAttribute("aria-label", `Latency and best score of the last minute: ${parts.join(", ")}`);
  }
}
