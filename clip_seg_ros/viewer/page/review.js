// SPDX-License-Identifier: Apache-2.0
// The page of a review: joins its parts to the server. Nothing here loads anything from elsewhere.

import { Cross } from "./cross.js";
import { Link } from "./link.js";
import { Picture } from "./picture.js";
import { ImageList, Log, ObjectList, Wishes } from "./review_lists.js";
import { keepTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
const KEYS = {
  "j ↓ →": "next object",
  "k ↑ ←": "object before",
  a: "accept the object",
  r: "reject the object",
  n: "name: type it, and Enter",
  t: "in all images of its track, or in this one alone",
  u: "take your newest decision back",
  x: "accept the whole picture",
  c: "a click or a box adds an object",
  b: "draw a box with a finger",
  m: "masks or the plain picture",
  "[ ]": "earlier or later images",
  "?": "these keys",
};
const state = { image: null, object: null, layer: "overlay", asked: 0, wanted: null, named: "" };
let before = Promise.resolve();

// The address with the token was needed once; a cookie has it now, and a picture of the screen need not.
if (location.search) history.replaceState(null, "", location.pathname);

const images = new ImageList($("images"), $("place"), $("earlier"), $("later"), ask, show);
const objects = new ObjectList($("objects"), $("nothing"), choose);
const log = new Log($("answers"));
const wishes = new Wishes($("wish"), () => turn());
const picture = new Picture($("canvas"), $("marks"), $("waiting"), () => {}, () => {}, (spot) => {
  $("canvas").blur(); // so that keys are about the objects again
  inTurn(() => point(spot));
});
new Cross($("canvas"), $("cross"), $("spot"), () => picture.header, (spot) => inTurn(() => point(spot)));
const link = new Link("review", told, () => {}, connected);

/** Does one thing after the other, so that whoever types fast decides about what comes next. */
function inTurn(act) {
  before = before.then(act).catch((why) => status(why.message, "failed"));
}

function ask(message) {
  return link.ask({ by: $("by").value.trim() || "somebody", ...message });
}

/** Asks, and says what came of it; returns the answer, or null. */
async function attempt(message) {
  try {
    const answer = await ask(message);
    status(answer.words ?? "", "done");
    return answer;
  } catch (why) {
    status(why.message, "failed");
    return null;
  }
}

function status(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function banner(text) {
  $("banner").textContent = text;
  $("banner").hidden = !text;
}

function connected(is, why) {
  if (!is) banner(why || "The connection to the review was lost. Trying again ...");
}

async function told(event) {
  if (event.event === "hello") {
    banner(event.damaged ? `${event.damaged} damaged lines of decisions.jsonl are left out.` : "");
    document.title = $("title").textContent = event.title;
    wishes.fill(event);
    $("phrases").replaceChildren(...event.phrases.map(({ name }) => new Option(name, name)));
    $("threshold-phrase").replaceChildren(
      ...event.phrases.map(({ name, count }) => new Option(`${name} (${count})`, name)),
    );
    stand(event);
    setLeast();
    await turn(images.here(), state.image?.image);
  } else if (event.event === "decided") {
    stand(event);
    const mine = event.by === $("by").value.trim();
    log.add(event, mine);
    if (!mine) status(`${event.by} ${event.words}`);
    if (event.images === null) images.refresh(wishes.value());
    else images.update(event.images);
    const isTouched = event.images === null || event.images.some((each) => each.image === state.image?.image);
    if (isTouched) reload();
  }
}

function stand({ progress, thresholds }) {
  state.thresholds = thresholds;
  $("progress").value = progress.objects ? progress.decided_objects / progress.objects : 1;
  $("far-text").textContent =
    `${progress.decided_objects} of ${progress.objects} objects, ` +
    `${progress.decided_images} of ${progress.images} images decided`;
}

/** Shows a page of the list, and an image of it: the first one if none is named; returns whether there is the page. */
async function turn(place, image) {
  if (!(await images.load({ ...wishes.value(), ...place }))) return false;
  const chosen = images.images.some((each) => each.image === image) ? image : images.images[0]?.image;
  if (chosen === undefined) clear();
  else await show(chosen);
  return true;
}

function clear() {
  state.image = state.object = state.wanted = null;
  objects.show([], null);
  picture.clear("There is no such image.");
  describe();
}

/** Shows an image; `object` is the number of the one that is chosen: by default, of the most doubtful one. */
function show(image, object) {
  state.wanted = { image, object };
  state.showing = load(image, object);
  return state.showing;
}

async function load(image, object) {
  const number = ++state.asked;
  let answer = null;
  try {
    answer = await ask({ ask: "image", image });
  } catch (why) {
    status(why.message, "failed");
  }
  if (number !== state.asked) return state.showing; // another one was asked for meanwhile, and is waited for
  if (answer === null) {
    state.wanted = state.image && { image: state.image.image, object: state.object };
    return;
  }
  const isOther = state.image?.image !== image;
  state.image = answer;
  images.choose(image);
  choose(object ?? mostDoubtful(answer.objects));
  if (isOther) status("");
  await draw();
}

/** Shows the image anew, or the one that is on its way, with what was decided. */
function reload() {
  if (state.wanted !== null) return show(state.wanted.image, state.wanted.object ?? undefined);
}

function mostDoubtful(found) {
  const open = found.filter((each) => each.state === "guessed");
  return order(open.length ? open : found)[0]?.number ?? null;
}

const order = (found) => [...found].sort((one, other) => other.doubt - one.doubt || one.number - other.number);

async function draw() {
  const { image, version, size_px, objects: found } = state.image;
  const width = Math.ceil($("picture").clientWidth * devicePixelRatio);
  const address = `/picture?image=${image}&version=${version}&width=${width}&layer=${state.layer}`;
  const answer = await fetch(address).catch(() => null);
  if (state.image?.image !== image || state.image.version !== version) return;
  if (!answer?.ok) {
    picture.clear(answer ? await answer.text() : "The picture does not come.");
    return;
  }
  const things = found.filter((each) => each.state !== "rejected");
  await picture.show({ size_px, things, camera: `${state.image.source} ${state.image.index}` }, await answer.blob());
}

function choose(number) {
  const found = state.image?.objects ?? [];
  state.object = found.some((each) => each.number === number) ? number : null;
  if (state.wanted?.image === state.image?.image) state.wanted = { ...state.wanted, object: state.object };
  objects.show(order(found), state.object);
  picture.mark(chosen()?.outlines_px ?? []);
  describe();
}

const chosen = () => state.image?.objects.find((each) => each.number === state.object) ?? null;

function describe() {
  const object = chosen();
  const where = state.image === null ? "" : ` in ${state.image.source} ${state.image.index}`;
  $("chosen").textContent =
    object === null
      ? `No object is chosen${where}.`
      : `${object.prompt}${object.track ? ` #${object.track}` : ""}, score ${object.score.toFixed(2)}, ${object.state}${where}`;
  const why = [...(object?.words ?? []), ...(state.image?.words ?? [])];
  $("why").textContent = why.length ? `Doubtful: ${why.join("; ")}.` : "";
  nameIt(object);
  for (const id of ["accept", "reject"]) $(id).disabled = object === null;
  $("whole").disabled = state.image === null;
  $("track").disabled = !object?.track;
}

/** Puts the object's name into the field, but not over what is typed there about the same object. */
function nameIt(object) {
  const named = JSON.stringify([state.image?.image, object?.number, object?.prompt]);
  if (named === state.named || document.activeElement === $("name")) return;
  state.named = named;
  $("name").value = object?.prompt ?? "";
}

// What is decided.

async function decide(kind, more = {}, thenNext = true) {
  if (state.image === null) return;
  if (kind !== "picture" && state.object === null) {
    status("choose an object first", "failed");
    return;
  }
  const { image } = state.image;
  const whole_track = kind !== "picture" && $("track").checked && !$("track").disabled;
  const done = await attempt({ ask: "decide", kind, image, object: state.object, whole_track, ...more });
  if (done !== null && whole_track) $("track").checked = false;
  if (done !== null && thenNext) await goOn(kind === "picture");
}

/** Goes to the next object of this image that nobody decided, or to the next image. */
async function goOn(isWhole) {
  const open = isWhole ? [] : state.image.objects.filter((each) => each.state === "guessed" && each.number !== state.object);
  if (open.length) await show(state.image.image, order(open)[0].number);
  else await nextImage(1);
}

async function nextImage(step) {
  const next = images.beside(state.image?.image, step);
  if (next !== null) return show(next);
  if (await turn(images.beyond(step))) return;
  status(step > 0 ? "this was the last image" : "this is the first image");
  await reload();
}

function move(step) {
  const listed = order(state.image?.objects ?? []);
  const next = listed[listed.findIndex((each) => each.number === state.object) + step];
  if (next !== undefined && (step > 0 || state.object !== null)) choose(next.number);
  else return nextImage(step);
}

async function point(spot) {
  if (state.image === null) return;
  const how = $("how").value;
  const adds = how === "object";
  const name = $("name").value.trim();
  if (adds ? !name : state.object === null) {
    status(adds ? "type the name of the new object first" : "choose an object first", "failed");
    return;
  }
  status("looking for the thing there ...");
  const object = adds ? null : state.object;
  const done = await attempt({ ask: "mask", image: state.image.image, object, how: adds ? "new" : how, spot, name });
  if (done !== null && adds) await show(state.image.image, -done.number);
}

async function undo() {
  await attempt({ ask: "undo" });
}

// The threshold of a phrase.

function setLeast() {
  $("least").value = state.thresholds?.[$("threshold-phrase").value] ?? 0;
  countGoing();
}

async function countGoing() {
  const [phrase, threshold] = [$("threshold-phrase").value, Number($("least").value)];
  $("least-text").textContent = threshold.toFixed(2);
  if (!phrase) return;
  const count = await ask({ ask: "would_go", phrase, threshold }).catch(() => null);
  if (count === null || Number($("least").value) !== threshold) return;
  $("would-go").textContent = `${count} object${count === 1 ? "" : "s"} that nobody decided about would go.`;
}

// Controls.

function setLayer(layer) {
  state.layer = layer;
  for (const each of document.querySelectorAll("[data-layer]")) {
    each.setAttribute("aria-pressed", String(each.dataset.layer === layer));
  }
  if (state.image !== null) draw();
}

function toggleHelp() {
  $("keys").hidden = !$("keys").hidden;
  $("help").setAttribute("aria-expanded", String(!$("keys").hidden));
}

function toggleBox() {
  const on = $("box").getAttribute("aria-pressed") !== "true";
  $("box").setAttribute("aria-pressed", String(on));
  picture.drawBoxes(on);
}

const page = (step) => turn(images.beyond(step));

const DEEDS = {
  j: () => move(1),
  ArrowDown: () => move(1),
  ArrowRight: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  ArrowLeft: () => move(-1),
  a: () => decide("accept"),
  r: () => decide("reject"),
  u: undo,
  x: () => decide("picture"),
  "[": () => page(-1),
  "]": () => page(1),
};
const SETTINGS = {
  n: () => $("name").select(),
  t: () => $("track").click(),
  c: () => {
    $("how").value = "object";
    $("name").select();
  },
  b: toggleBox,
  m: () => setLayer(state.layer === "plain" ? "overlay" : "plain"),
  "?": toggleHelp,
};
const MOVES = "jk";

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") return document.activeElement?.blur();
  if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
  const deed = DEEDS[event.key];
  if (deed === undefined && SETTINGS[event.key] === undefined) return;
  event.preventDefault();
  // A key that is held down decides once.
  if (event.repeat && !MOVES.includes(event.key) && !event.key.startsWith("Arrow")) return;
  if (deed !== undefined) inTurn(deed);
  else SETTINGS[event.key]();
});
for (const each of document.querySelectorAll("[data-layer]")) {
  each.addEventListener("click", () => setLayer(each.dataset.layer));
}
$("accept").addEventListener("click", () => inTurn(() => decide("accept")));
$("reject").addEventListener("click", () => inTurn(() => decide("reject")));
$("whole").addEventListener("click", () => inTurn(() => decide("picture")));
$("undo").addEventListener("click", () => inTurn(undo));
$("help").addEventListener("click", toggleHelp);
$("box").addEventListener("click", toggleBox);
$("earlier").addEventListener("click", () => inTurn(() => page(-1)));
$("later").addEventListener("click", () => inTurn(() => page(1)));
$("rename").addEventListener("submit", (event) => {
  event.preventDefault();
  $("name").blur();
  const name = $("name").value;
  inTurn(() => decide("rename", { name }));
});
$("least").addEventListener("input", countGoing);
$("threshold-phrase").addEventListener("change", setLeast);
$("threshold").addEventListener("submit", (event) => {
  event.preventDefault();
  const threshold = Number($("least").value) || null;
  attempt({ ask: "decide", kind: "threshold", name: $("threshold-phrase").value, threshold }).then(countGoing);
});
$("key-list").replaceChildren(
  ...Object.entries(KEYS).flatMap(([key, meaning]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, text.textContent] = [key, meaning];
    return [term, text];
  }),
);
$("by").value = named();
$("by").addEventListener("change", () => named($("by").value.trim()));
keepTheme($("theme"));

/** The name under which this browser decides; it is kept. */
function named(name) {
  try {
    const kept = name || localStorage.getItem("clip_seg_ros reviewer");
    const given = kept || `reviewer ${Math.random().toString(36).slice(2, 6)}`;
    localStorage.setItem("clip_seg_ros reviewer", given);
    return given;
  } catch {
    return name || "reviewer"; // nothing is kept in a private window
  }
}
