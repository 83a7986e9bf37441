// SPDX-License-Identifier: Apache-2.0
// The page: joins its parts to the server. Nothing here loads anything from elsewhere.

import { CommandLine } from "./command.js";
import { Cross } from "./cross.js";
import { Graph } from "./graph.js";
import { Link } from "./link.js";
import { Health, Models, Settings, Things } from "./panels.js";
import { Picture } from "./picture.js";
import { isDark, keepTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
const state = { camera: "", cameras: [], layer: "overlay", stage: "picture", paused: false, canPause: false };
// By it the server knows who clicks in the scene or saves a picture, also after the connection broke.
const viewer = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
let taught = 0;

// The address with the token was needed once; a cookie has it now, and a picture of the screen need not.
if (location.search) history.replaceState(null, "", location.pathname);

const things = new Things($("things"), $("nothing"), $("frame"), (thing) => point(thing.centroid_px));
const settings = new Settings($("parameters"), (name, value) => link.ask({ ask: "set", name, value }));
const health = new Health($("light"), $("level"), $("values"));
const graph = new Graph($("graph"), $("rates"));
const line = new CommandLine($("say"), $("command"), $("suggestions"), $("status"), $("answers"), (text) =>
  link.ask({ ask: "command", text }),
);
const models = new Models($("use"), $("models"), $("model-about"), $("model-name"), $("fetched"), (name) =>
  line.give(`use ${name}`),
);
const picture = new Picture($("canvas"), $("marks"), $("waiting"), drawn, skipped, point);
const cross = new Cross($("canvas"), $("cross"), $("place"), () => picture.header, point);
const link = new Link(viewer, told, shown, connected);

function shown(header, jpeg) {
  // One of the camera before may still have been on its way.
  if (header.camera === state.camera) picture.show(header, jpeg);
  else skipped(header);
}

/** The server waits for each picture to be drawn. */
function skipped(header) {
  link.send({ ask: "drawn", number: header.number });
}

function connected(is, why) {
  if (is) {
    look();
    if ($("settings").open) loadSettings();
    if ($("model").open) loadModels();
  } else {
    banner(why || "The connection to the viewer was lost. Trying again ...");
    picture.clear("No connection.");
  }
}

function told(event) {
  const takers = {
    hello: () => {
      banner("");
      document.title = $("title").textContent = event.title;
      state.canPause = event.can_pause;
      if (event.can_pause) showPaused(!event.playing);
      $("answers").replaceChildren();
      showCameras(event.cameras);
    },
    cameras: () => showCameras(event.cameras),
    status: () => {
      line.answered(event);
      models.progressed(event);
    },
    health: () => health.show(event),
    parameter: () => settings.changed(event.name, event.value),
    model: () => models.serves(event.name),
    gone: () => {
      banner(event.message);
      picture.clear("Nothing to show now.");
      things.clear();
      health.show({ level: "error", message: event.message, values: {} });
    },
    back: () => {
      banner("");
      look();
      if ($("settings").open) loadSettings();
    },
    playing: () => showPaused(!event.playing),
    ended: () => line.say("", event.message),
    picked: () => {
      const thing = picture.header?.things.find(({ id }) => id === event.id);
      if (event.camera === state.camera && thing) point(thing.centroid_px);
    },
  };
  takers[event.event]?.();
}

function banner(text) {
  $("banner").textContent = text;
  $("banner").hidden = !text;
}

function showCameras(cameras) {
  state.cameras = cameras;
  if (!cameras.includes(state.camera)) {
    state.camera = cameras[0] ?? "";
    forgetCamera();
  }
  $("camera").replaceChildren(...cameras.map((name) => new Option(name || "camera", name)));
  $("camera").value = state.camera;
  $("camera-label").hidden = cameras.length < 2;
  look();
}

/** Tells the server what is looked at; nothing while the page is hidden. */
function look() {
  const frame = $("canvas").getBoundingClientRect();
  const isShown = !document.hidden;
  link.send({
    ask: "look",
    camera: isShown && state.cameras.includes(state.camera) ? state.camera : null,
    layer: state.layer,
    space: state.stage !== "picture",
    // A source that is paused itself still answers anew what it shows.
    paused: state.paused && !state.canPause,
    width_px: Math.max(1, frame.width) * (window.devicePixelRatio || 1),
  });
  const address = `camera=${encodeURIComponent(state.camera)}`;
  $("save").href = `/picture?${address}&layer=${state.layer}&viewer=${viewer}`;
  $("record").href = "/recording";
}

function drawn(header) {
  link.send({ ask: "drawn", number: header.number });
  things.show(header);
  line.learn(header.prompts);
  note(header.notes);
  const best = header.things.length ? Math.max(...header.things.map((thing) => thing.score)) : null;
  graph.add(header.notes.latency_ms ?? null, best, header.to_screen_ms);
}

/** Says what else is worth knowing of the picture: which one it is, how things lie, and who answered. */
function note({ name, position, relations = [], caution, model }) {
  const said = [name, position, ...relations, model && `answered by ${model}`, caution].filter(Boolean).join(" · ");
  if ($("notes").textContent === said) return;
  $("notes").textContent = said;
  $("notes").hidden = !said;
}

// Pointing at things.

async function point(spot, teachAs = "") {
  state.spot = spot;
  state.spotCamera = state.camera;
  try {
    const found = await link.ask({ ask: "point", camera: state.camera, spot, teach_as: teachAs });
    showCard(found);
    return true;
  } catch (error) {
    picture.mark([]);
    $("card").hidden = true;
    line.say("failed", error.message);
    return false;
  }
}

function showCard(found) {
  const { thing } = found;
  picture.mark(found.outlines_px);
  $("card").hidden = false;
  $("card-title").textContent = thing.prompt || "Something without a name";
  const metres = thing.position_m?.map((value) => value.toFixed(3)).join(", ");
  const place = metres ? `at (${metres}) m in ${found.frame}` : "";
  $("card-text").textContent = [found.message, place].filter(Boolean).join(" · ");
  $("card-nearest").textContent = found.nearest;
}

function dismiss() {
  $("card").hidden = true;
  picture.mark([]);
}

$("teach").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("teach-name").value.trim();
  if (name && (await point(state.spot, name))) {
    line.learn([name]);
    line.say("done", `taught: now type “segment ${name}”`);
  }
});
$("alike").addEventListener("click", async () => {
  const name = `thing ${++taught}`;
  if (await point(state.spot, name)) line.give(`segment ${name}`);
});
$("dismiss").addEventListener("click", dismiss);

// What is shown.

function press(attribute, value) {
  for (const button of document.querySelectorAll(`[data-${attribute}]`)) {
    button.ariaPressed = String(button.dataset[attribute] === value);
  }
}

function setStage(stage) {
  state.stage = stage;
  press("stage", stage);
  $("picture").hidden = stage === "space";
  const isOpen = stage !== "picture";
  $("space").hidden = !isOpen;
  // A scene that nobody sees is not even loaded.
  if (!isOpen) $("space").replaceChildren();
  else if (!$("space").firstChild) {
    const frame = document.createElement("iframe");
    frame.title = "The things in 3D";
    frame.src = `/3d/${viewer}/${isDark() ? "?darkMode" : ""}`;
    $("space").append(frame);
  }
  look();
}

function setPaused(paused) {
  showPaused(paused);
  if (state.canPause) play(paused ? "pause" : "go");
  look();
}

function showPaused(paused) {
  state.paused = paused;
  $("pause").ariaPressed = String(paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("step").disabled = !paused;
}

function forgetCamera() {
  picture.clear("Waiting for a picture ...");
  cross.forget();
  things.clear();
  dismiss();
}

function play(how) {
  link.ask({ ask: "play", how }).catch((error) => line.say("failed", error.message));
}

function step() {
  if (!state.paused) return;
  if (state.canPause) play("step");
  else link.send({ ask: "step" });
}

function setBoxes(on) {
  $("box").ariaPressed = String(on);
  picture.drawBoxes(on);
}

for (const button of document.querySelectorAll("[data-stage]")) {
  button.addEventListener("click", () => setStage(button.dataset.stage));
}
for (const button of document.querySelectorAll("[data-layer]")) {
  button.addEventListener("click", () => {
    state.layer = button.dataset.layer;
    press("layer", state.layer);
    look();
  });
}
$("camera").addEventListener("change", () => {
  state.camera = $("camera").value;
  forgetCamera();
  look();
});
$("pause").addEventListener("click", () => setPaused(!state.paused));
$("step").addEventListener("click", step);
$("clear").addEventListener("click", () => line.give("stop"));
$("box").addEventListener("click", () => setBoxes($("box").ariaPressed !== "true"));
document.addEventListener("visibilitychange", look);
let width = 0;
new ResizeObserver(([{ contentRect }]) => {
  if (contentRect.width !== width) look();
  width = contentRect.width;
}).observe($("stage"));

// Settings and models are asked for when somebody opens them.

async function loadSettings() {
  try {
    settings.show(await link.ask({ ask: "parameters" }));
  } catch (error) {
    $("parameters").textContent = error.message;
  }
}

async function loadModels() {
  try {
    models.show(await link.ask({ ask: "models" }));
  } catch (error) {
    $("model-about").textContent = error.message;
  }
}

$("settings").addEventListener("toggle", () => $("settings").open && loadSettings());
$("model").addEventListener("toggle", () => $("model").open && loadModels());

// Light and dark.

keepTheme($("theme"));

// Keys, where nobody types.

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea, button, a, summary");
  if (event.key === "Escape") {
    dismiss();
    setBoxes(false);
    return;
  }
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    "/": () => $("command").focus(),
    " ": () => setPaused(!state.paused),
    ".": step,
    s: () => $("save").click(),
    b: () => setBoxes($("box").ariaPressed !== "true"),
  };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});
