// One image: source and edit on each other under a slider, with boxes; zoom and pan; then the start of the page.
const dialog = $("dialog"), stage = $("stage");
const MOST = 32; // times
let current = 0; // index in `shown`, which cannot be filtered while the dialog is open
let view = { zoom: 1, x: 0, y: 0 }; // the part of the picture that shows: its upper left corner, 0 to 1

function open(at) {
  const before = shown[current];
  current = at;
  const i = shown[at], s = sourceOf(i), width = sources.width[s], height = sources.height[s];
  $("title").textContent = `${conditionOf(i)}: ${nameOf(i)}`;
  $("missing").hidden = true;
  Object.assign($("before"), { src: sourceImage(i), alt: `source ${nameOf(i)}` });
  Object.assign($("after"), { src: failed(i) ? "" : imageOf(i), alt: failed(i) ? "" : `${conditionOf(i)} edit` });
  $("before").hidden = !sourceImage(i);
  $("after").hidden = failed(i);
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.width = `min(100%, ${((60 * width) / height).toFixed(2)}vh)`;
  const again = dialog.open && sourceOf(before) === s; // another condition of the source: the same place of it
  dialog.append($("review"));
  if (!dialog.open) dialog.showModal();
  if (!again) slide(failed(i) ? 100 : sourceImage(i) ? 50 : 0);
  look(again ? view : { zoom: 1, x: 0, y: 0 });
  listLabels(i);
  showVerdict();
  showFacts(i);
  $("earlier").disabled = at === 0;
  $("later").disabled = at + 1 >= shown.length;
}

function showFacts(i) {
  const [model, settings] = data.settings[jobs.settings[i]];
  const scores = Object.keys(data.scores).filter((name) => jobs[name][i] !== null);
  const facts = {
    error: data.errors[i], scores: scores.flatMap((name, n) => [...(n ? [", "] : []), scoreText(name, i, true)]),
    prompt: data.prompts[jobs.prompt[i]], model: model.startsWith(data.model) ? model : `${data.model}, ${model}`, settings,
    seed: jobs.seed[i], attempt: jobs.attempt[i] + 1, job: jobs.id[i],
    "make it again": `diffgen reproduce ${runFolder()} ${jobs.id[i]}`,
  };
  const filled = Object.entries(facts).filter(([, value]) => value !== undefined && value !== "" && value.length !== 0);
  $("facts").replaceChildren(...filled.flatMap(([term, value]) => [
    element("dt", { textContent: term }), element("dd", {}, ...[value].flat()),
  ]));
}

function showVerdict() {
  const i = shown[current], decision = decisionOf(i);
  $("verdict-text").textContent = verdictText(i);
  for (const word of ["reject", "keep"]) {
    $(word).disabled = failed(i);
    $(word).setAttribute("aria-pressed", decision === word);
  }
  $("undo").disabled = failed(i) || !decision;
}

// --- labels

// The image's label rows: its shapes, and what became of each.
function labelsOf(i) {
  const kept = rowsOf(sourceOf(i)), texts = [...kept, ...addedTo(i)];
  return shapesOf(texts).map((shape, row) => {
    const dropped = (data.dropped[i] || []).includes(row), word = (data.objects[i] || {})[row];
    const change = dropped ? " (label removed)" : row >= kept.length ? " (label added)" : word ? ` (${word})` : "";
    return { ...shape, text: texts[row], dropped, change };
  });
}

function listLabels(i) {
  $("label-list").replaceChildren(...labelsOf(i).map(({ points, kind, text, change }) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colourOf(kind);
    const button = element("button", { type: "button" }, swatch, ` ${data.names[kind]}${change} `,
      element("code", { textContent: text }));
    button.addEventListener("click", () => lookAt(boxOf({ points })));
    return element("li", {}, button);
  }));
}

function drawing(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// The class name, in the upper left corner of a box that is wide enough for it: other names would cover each other.
function drawName(shape, width, height, pixel) {
  const { x, y, w } = boxOf(shape), size = 13 * pixel, name = data.names[shape.kind];
  if (name.length * size * 0.6 > w * width) return [];
  const place = { x: x * width + size / 3, y: Math.max(y * height + size * 1.2, size), "font-size": size };
  const text = drawing("text", { ...place, fill: colourOf(shape.kind) });
  text.textContent = name;
  return [text];
}

function drawShapes() {
  const i = shown[current], s = sourceOf(i), width = sources.width[s], height = sources.height[s];
  const shapes = labelsOf(i), { zoom, x, y } = view;
  const pixel = width / zoom / Math.max(1, stage.clientWidth); // of the screen, in the picture's own
  const drawn = shapes.flatMap(({ kind, points, dropped }) => ["halo", "line"].map((what) => drawing("polygon", {
    points: points.map(([left, top]) => `${left * width},${top * height}`).join(" "), class: dropped ? `${what} dropped` : what,
    ...(what === "line" && { stroke: colourOf(kind) }),
  })));
  const dotted = shapes.flatMap(({ kind, dots }) => dots.map(([left, top]) =>
    drawing("circle", { cx: left * width, cy: top * height, r: 3 * pixel, fill: colourOf(kind) })));
  $("overlay").setAttribute("viewBox", `${x * width} ${y * height} ${width / zoom} ${height / zoom}`);
  $("overlay").replaceChildren(...drawn, ...dotted, ...shapes.flatMap((shape) => drawName(shape, width, height, pixel)));
}

// --- what shows of the picture

function look({ zoom, x, y }) {
  const inside = (at) => Math.min(1 - 1 / zoom, Math.max(0, at));
  view = { zoom, x: inside(x), y: inside(y) };
  const place = `scale(${zoom}) translate(${-100 * view.x}%, ${-100 * view.y}%)`;
  for (const id of ["before", "after"]) $(id).style.transform = place;
  stage.classList.toggle("zoomed", zoom > 1);
  $("zoom").value = `${zoom.toFixed(zoom < 10 && zoom % 1 ? 1 : 0)} ×`;
  $("out").disabled = zoom === 1;
  $("in").disabled = zoom === MOST;
  drawShapes();
}

// Zoom by a factor; the place at (x, y) of the stage, 0 to 1, stays where it is.
function zoomBy(factor, x = 0.5, y = 0.5) {
  const zoom = Math.min(MOST, Math.max(1, view.zoom * factor)), gain = 1 / view.zoom - 1 / zoom;
  look({ zoom, x: view.x + x * gain, y: view.y + y * gain });
}

// Half of the stage for a box, its middle in the middle.
function lookAt({ x, y, w, h }) {
  const zoom = Math.min(MOST, Math.max(1, 1 / (2 * Math.max(w, h, 1e-6))));
  look({ zoom, x: x + (w - 1 / zoom) / 2, y: y + (h - 1 / zoom) / 2 });
  stage.scrollIntoView({ block: "nearest" });
}

// By shares of the stage.
const pan = (right, down) => look({ ...view, x: view.x + right / view.zoom, y: view.y + down / view.zoom });

function slide(to) {
  const share = Math.min(100, Math.max(0, to));
  $("slider").value = share;
  $("cut").style.clipPath = `inset(0 0 0 ${share}%)`;
  $("handle").style.left = `${share}%`;
}

function step(by) {
  const to = current + by;
  if (to >= 0 && to < shown.length) open(to);
}

function showBoxes(on) {
  $("boxes").checked = on;
  $("overlay").style.display = on ? "" : "none";
}

// --- events

function dialogKey(event) {
  const keys = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), b: () => showBoxes(!$("boxes").checked),
    s: () => slide($("slider").value < 50 ? 100 : 0), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5),
    "-": () => zoomBy(1 / 1.5), 0: () => zoomBy(0), r: () => decide([shown[current]], "reject"),
    k: () => decide([shown[current]], "keep"), u: () => decide([shown[current]], ""),
  };
  const pans = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  if (event.target === $("slider") && event.key.startsWith("Arrow")) return false;
  if (event.shiftKey && event.key in pans) pan(...pans[event.key]);
  else if (event.key in keys) keys[event.key]();
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("select, input[type=search], input[type=number]")) return;
  if ((dialog.open ? dialogKey : galleryKey)(event)) event.preventDefault();
});
for (const [id, act] of Object.entries({
  earlier: () => step(-1), later: () => step(1), close: () => dialog.close(), in: () => zoomBy(1.5), out: () => zoomBy(1 / 1.5),
  reject: () => decide([shown[current]], "reject"), keep: () => decide([shown[current]], "keep"),
  undo: () => decide([shown[current]], ""),
}))
  $(id).addEventListener("click", act);
$("boxes").addEventListener("change", () => showBoxes($("boxes").checked));
$("slider").addEventListener("input", () => slide(+$("slider").value));
stage.addEventListener("wheel", (event) => {
  if (view.zoom === 1 && event.deltaY > 0) return; // the dialog scrolls
  event.preventDefault();
  const { left, top, width, height } = stage.getBoundingClientRect();
  zoomBy(1.002 ** -event.deltaY, (event.clientX - left) / width, (event.clientY - top) / height);
}, { passive: false });
// Dragging moves the slider over a whole picture, and a zoomed one itself.
let grip = { x: 0, y: 0 }; // where the pointer was last
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  grip = event;
});
for (const kind of ["pointerdown", "pointermove"])
  stage.addEventListener(kind, (event) => {
    if (!event.buttons) return;
    const { left, width, height } = stage.getBoundingClientRect();
    if (view.zoom === 1) slide(Math.round(((event.clientX - left) / width) * 100));
    else pan((grip.x - event.x) / width, (grip.y - event.y) / height);
    grip = event;
  });
for (const id of ["before", "after"])
  $(id).addEventListener("error", () => {
    if (!$(id).getAttribute("src")) return;
    $("missing").hidden = false;
    $("missing").textContent = `The ${id === "before" ? "source" : "edit"} cannot be loaded.`;
  });
dialog.addEventListener("close", () => {
  document.body.append($("review"));
  const to = Math.floor(rows.findIndex((images) => images.includes(shown[current])) / ROWS);
  if (to !== page) turn(to);
  focusCard(cardOf(shown[current]));
});
// What has the focus is never behind the bar of decisions, however high that is.
new ResizeObserver(() => {
  const height = `${$("review").offsetHeight + 4}px`;
  for (const scrolled of [document.documentElement, dialog]) scrolled.style.scrollPaddingBottom = height;
}).observe($("review"));
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("diffgen theme", next); } catch { /* it lasts until the page is closed */ }
});

// --- start

try {
  const kept = localStorage.getItem("diffgen theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch { /* no storage */ }
if (location.protocol === "file:") { // the file's own date: the same run has the same bytes on any day
  const when = new Date(document.lastModified).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });
  $("when").textContent = `, written on ${when}`;
  document.title += `, ${when}`;
}
const option = (value, text) => element("option", { value, textContent: text });
const held = new Set([...sources.label.flatMap((text) => text.match(/^\d+/gm) ?? []), ...Object.values(data.added).flat().map((row) => row.split(" ")[0])]);
$("condition").append(...data.conditions.map((name) => option(name, name)));
$("class").append(...data.names.flatMap((name, kind) => (held.has(`${kind}`) ? [option(kind, name)] : [])));
$("size").append(...data.sizes.map(([name]) => option(name, name)));
$("verdict").append(option("accepted", "accepted"), option("rejected", "rejected"),
  ...data.reasons.flatMap((word) => (word ? [option(`=${word}`, word === "failed" ? word : `rejected: ${word}`)] : [])),
  ...(weak.size ? [option("weak", "to be reviewed")] : []), option("decided", "decided by hand"));
$("score").append(...Object.keys(data.scores).filter((name) => jobs[name].some((value) => value !== null)).map((n) => option(n, n)));
showDecided();
filter();
