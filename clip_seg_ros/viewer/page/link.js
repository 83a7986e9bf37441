// SPDX-License-Identifier: Apache-2.0
// The connection to the server: it is made again for as long as the page is open.

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 3000;
const SILENCE_MS = 15000; // the server says something every 5 s

export class Link {
  /** Calls `onEvent(event)`, `onPicture(header, jpeg)` and `onState(connected, why)`; `viewer` is the page's name. */
  constructor(viewer, onEvent, onPicture, onState) {
    this.viewer = viewer;
    this.onEvent = onEvent;
    this.onPicture = onPicture;
    this.onState = onState;
    this.heard = 0;
    setInterval(() => this.checkSilence(), SILENCE_MS / 3);
    this.waitMs = FIRST_WAIT_MS;
    this.asked = new Map();
    this.number = 0;
    this.open();
  }

  open() {
    const address = new URL(`/view?viewer=${this.viewer}`, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.heard = performance.now();
      this.waitMs = FIRST_WAIT_MS;
      this.onState(true, "");
    };
    this.socket.onmessage = (message) => {
      this.heard = performance.now();
      this.take(message.data);
    };
    this.socket.onclose = () => this.lost();
  }

  /** A robot that went out of reach closes nothing. */
  checkSilence() {
    if (this.socket.readyState !== WebSocket.OPEN || performance.now() - this.heard < SILENCE_MS) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.lost();
  }

  async lost() {
    for (const { reject } of this.asked.values()) {
      reject(new Error("the connection to the viewer was lost"));
    }
    this.asked.clear();
    this.onState(false, "");
    setTimeout(() => this.open(), this.waitMs);
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
    // A server that was started anew may want another token.
    const answer = await fetch("/", { method: "HEAD", cache: "no-store" }).catch(() => null);
    if (answer?.status === 401) this.onState(false, "The server was started anew: open the address that it printed.");
  }

  take(data) {
    if (data instanceof ArrayBuffer) {
      const length = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      this.onPicture(header, new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
      return;
    }
    const event = JSON.parse(data);
    const waiting = this.asked.get(event.request);
    if (event.event === "answer" || event.event === "refused") {
      this.asked.delete(event.request);
      if (event.event === "answer") waiting?.resolve(event.answer);
      else waiting?.reject(new Error(event.message));
      return;
    }
    this.onEvent(event);
  }

  /** Sends what needs no answer; whatever cannot be sent now is out of date later. */
  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Sends a question; the promise has the answer, or an error that says why there is none. */
  ask(message) {
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) {
        reject(new Error("there is no connection to the viewer now"));
        return;
      }
      const request = ++this.number;
      this.asked.set(request, { resolve, reject });
      this.send({ ...message, request });
    });
  }
}
