"use strict";
// One file, longer than others here, because the page may run one script only: its policy names that script's hash.
// Text is set by textContent and attributes only, never as HTML. Styles are set on the element's style object: the page's
// policy forbids style attributes.
const data = JSON.parse(document.getElementById("data").textContent);
const { jobs, sources } = data;
const PAGE = 48;
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// --- an image: `i` is its index in `jobs`

const sourceOf = (i) => jobs.source[i];
const nameOf = (i) => sources.name[sourceOf(i)];
const conditionOf = (i) => data.conditions[jobs.condition[i]];
const reasonOf = (i) => data.reasons[jobs.verdict[i]];
const colourOf = (kind) => data.colours[kind % data.colours.length];
const failed = (i) => reasonOf(i) === "failed";
const imageOf = (i) => `images/${jobs.id[i].slice(0, 2)}/${jobs.id[i]}.${data.format}`;
const addedTo = (i) => data.added[i] || [];
const classOf = (row) => parseInt(row, 10);
const classesOf = sources.label.map((text) => new Set(text && text.split("\n").map(classOf)));
const holds = (i, kind) => classesOf[sourceOf(i)].has(kind) || addedTo(i).some((row) => classOf(row) === kind);
const weak = new Set(data.weak);

function sourceImage(i) {
  const s = sourceOf(i), folder = data.folders[sources.folder[s]];
  return folder ? `${folder}/${sources.file[s]}` : sources.file[s];
}

function verdictText(i) {
  const decision = decisionOf(i);
  const byHand = { reject: "rejected by hand", keep: "kept by hand" }[decision] ?? "";
  const accepted = weak.has(i) && !byHand ? "accepted, to be reviewed" : "accepted";
  const checked = reasonOf(i) === "" ? accepted : failed(i) ? "failed" : `rejected: ${reasonOf(i)}`;
  return byHand && decision !== data.review[jobs.id[i]] ? `${checked}; ${byHand}` : byHand || checked;
}

// Shapes of a label text as lists of points, 0 to 1; the same rules as in diffgen/dataset/labels.py.
function shapesOf(i) {
  const kept = sources.label[sourceOf(i)].split("\n").filter(Boolean), rows = [...kept, ...addedTo(i)];
  const numbers = rows.map((row) => row.split(" ").map(Number));
  const [count, dims] = data.keypoints || [0, 2], pose = count && numbers.every((row) => row.length === 5 + count * dims);
  const boxes = pose || numbers.every((row) => row.length === 5);
  return numbers.map(([kind, ...v], row) => {
    const [x, y, w, h] = [v[0], v[1], v[2] / 2, v[3] / 2];
    const points = boxes ? [[x - w, y - h], [x + w, y - h], [x + w, y + h], [x - w, y + h]] : [];
    for (let n = 0; !boxes && n + 1 < v.length; n += 2) points.push([v[n], v[n + 1]]);
    const dots = [];
    for (let n = 4; pose && n < v.length; n += dims)
      if (dims === 3 ? v[n + 2] > 0 : Math.max(v[n], v[n + 1]) > 0) dots.push([v[n], v[n + 1]]);
    const dropped = (data.dropped[i] || []).includes(row);
    const word = (data.objects[i] || {})[row];
    return { kind, points, dots, text: rows[row], dropped, added: row >= kept.length, word };
  });
}

// --- decisions: the run folder's review, overridden by what was decided on this page

const KEY = `diffgen review of ${location.pathname}`;
const here = new Map();
try {
  const known = new Set(jobs.id);
  for (const [id, word] of Object.entries(JSON.parse(localStorage.getItem(KEY)) || {}))
    if (known.has(id) && ["reject", "keep", ""].includes(word)) here.set(id, word);
} catch { /* no storage, or not our data: decisions last until the page is closed */ }

const decisionOf = (i) => here.get(jobs.id[i]) ?? data.review[jobs.id[i]] ?? "";
const changed = () => [...here].filter(([id, word]) => word !== (data.review[id] ?? "")).length;

function decide(i, word) {
  if (failed(i)) return;
  here.set(jobs.id[i], word);
  try { localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(here))); } catch { /* as above */ }
  const card = document.querySelector(`.card[data-i="${i}"]`);
  if (card) dress(card, i);
  if (dialog.open) showVerdict();
  showDecided();
}

function reviewText() {
  const all = Object.entries({ ...data.review, ...Object.fromEntries(here) }).filter(([, word]) => word).sort();
  const head = "# Decisions by hand, for: diffgen export OUT --review review.yaml (it replaces the review kept there)\n";
  return head + all.map(([id, word]) => `"${id}": ${word}\n`).join("");
}

function save() {
  const link = element("a", { href: URL.createObjectURL(new Blob([reviewText()])), download: "review.yaml" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function runFolder() {
  try {
    const path = decodeURIComponent(location.pathname).replace(/\/[^/]*$/, "");
    if (location.protocol === "file:") return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
  } catch { /* the path is not UTF-8 */ }
  return "OUT";
}

function showDecided() {
  const count = changed();
  $("decided").textContent = count ? `${count} ${count === 1 ? "decision" : "decisions"} not exported yet` : "";
  $("save").disabled = !count && !Object.keys(data.review).length;
}

// --- gallery

let shown = [];
let page = 0;

function matches() {
  const [search, condition, kind, verdict] = ["search", "condition", "class", "verdict"].map((id) => $(id).value);
  const [least, most] = ["least", "most"].map((id) => parseFloat($(id).value));
  const score = jobs[$("score").value] ?? [], words = search.toLowerCase();
  const verdicts = {
    accepted: (i) => reasonOf(i) === "",
    rejected: (i) => reasonOf(i) !== "" && !failed(i),
    weak: (i) => weak.has(i) && decisionOf(i) === "",
    decided: (i) => decisionOf(i) !== "",
  };
  return (i) =>
    (!words || nameOf(i).toLowerCase().includes(words) || jobs.id[i].startsWith(words)) &&
    (!condition || conditionOf(i) === condition) &&
    (!kind || holds(i, +kind)) &&
    (!verdict || (verdicts[verdict] ?? ((j) => `=${reasonOf(j)}` === verdict))(i)) &&
    (isNaN(least) || (score[i] ?? -Infinity) >= least) &&
    (isNaN(most) || (score[i] ?? Infinity) <= most);
}

function filter() {
  shown = [...jobs.id.keys()].filter(matches());
  page = 0;
  draw();
}

function dress(card, i) {
  const verdict = verdictText(i);
  card.dataset.decision = decisionOf(i);
  card.lastChild.textContent = verdict;
  card.lastChild.className = /^(accepted|kept)/.test(verdict) && !verdict.includes("rejected") ? "good" : "bad";
  card.firstChild.alt = `${conditionOf(i)} made of ${nameOf(i)}, ${verdict}`;
}

function card(i, n) {
  const image = element("img", { loading: "lazy", decoding: "async", src: failed(i) ? sourceImage(i) : imageOf(i) });
  const name = element("span", { className: "name", title: nameOf(i), textContent: nameOf(i) });
  const button = element("button", { type: "button", className: "card", tabIndex: n ? -1 : 0 }, image, name,
    element("span", { textContent: conditionOf(i) }), element("span"));
  button.classList.toggle("failed", failed(i));
  button.dataset.i = i;
  dress(button, i);
  return element("li", {}, button);
}

const pages = () => Math.max(1, Math.ceil(shown.length / PAGE));

function draw() {
  $("gallery").replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(card));
  $("count").textContent = `${shown.length} of ${jobs.id.length} images, page ${page + 1} of ${pages()}`;
  Object.assign($("page"), { value: page + 1, max: pages() });
  $("back").disabled = page === 0;
  $("forth").disabled = page + 1 >= pages();
}

function turn(to) {
  page = Math.min(pages() - 1, Math.max(0, to || 0));
  draw();
}

const cards = () => [...document.querySelectorAll(".card")];

function focusCard(card) {
  if (!card) return;
  for (const other of cards()) other.tabIndex = other === card ? 0 : -1;
  card.focus();
}

function moveFocus(card, key) {
  const all = cards(), at = all.indexOf(card);
  const columns = getComputedStyle($("gallery")).gridTemplateColumns.split(" ").length;
  focusCard(all[at + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key]]);
}

// --- one image

const dialog = $("dialog");
let current = 0; // index in `shown`, which cannot be filtered while the dialog is open

function open(at) {
  current = at;
  const i = shown[at], s = sourceOf(i), width = sources.width[s], height = sources.height[s];
  $("title").textContent = `${conditionOf(i)}: ${nameOf(i)}`;
  $("missing").hidden = true;
  Object.assign($("before"), { src: sourceImage(i), alt: `source ${nameOf(i)}` });
  Object.assign($("after"), { src: failed(i) ? "" : imageOf(i), alt: failed(i) ? "" : `${conditionOf(i)} edit` });
  $("before").hidden = !sourceImage(i);
  $("after").hidden = failed(i);
  $("stage").style.aspectRatio = `${width} / ${height}`;
  $("stage").style.width = `min(100%, ${((60 * width) / height).toFixed(2)}vh)`;
  if (!dialog.open) dialog.showModal();
  drawShapes(i, width, height);
  slide(failed(i) ? 100 : sourceImage(i) ? 50 : 0);
  showVerdict();
  const [model, settings] = data.settings[jobs.settings[i]];
  const scores = data.scores.filter((name) => jobs[name][i] !== null).map((name) => `${name} ${jobs[name][i]}`);
  const facts = {
    error: data.errors[i], scores: scores.join(", "), prompt: data.prompts[jobs.prompt[i]],
    model: model.startsWith(data.model) ? model : `${data.model}, ${model}`, settings,
    seed: jobs.seed[i], attempt: jobs.attempt[i] + 1, job: jobs.id[i],
    "make it again": `diffgen reproduce ${runFolder()} ${jobs.id[i]}`,
  };
  const filled = Object.entries(facts).filter(([, value]) => value !== undefined && value !== "");
  $("facts").replaceChildren(...filled.flatMap(([term, value]) => [
    element("dt", { textContent: term }), element("dd", { textContent: value }),
  ]));
  $("earlier").disabled = at === 0;
  $("later").disabled = at + 1 >= shown.length;
}

function drawing(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// The class name, in the upper left corner of a box that is wide enough for it: other names would cover each other.
function drawName({ kind, points }, width, height) {
  const size = (13 * width) / Math.max(1, $("stage").clientWidth);
  const left = Math.min(...points.map(([x]) => x)) * width, top = Math.min(...points.map(([, y]) => y)) * height;
  const room = Math.max(...points.map(([x]) => x)) * width - left;
  if (data.names[kind].length * size * 0.6 > room) return [];
  const place = { x: left + size / 3, y: Math.max(top + size * 1.2, size), "font-size": size };
  const text = drawing("text", { ...place, fill: colourOf(kind) });
  text.textContent = data.names[kind];
  return [text];
}

function drawShapes(i, width, height) {
  const shapes = shapesOf(i), radius = (3 * width) / Math.max(1, $("stage").clientWidth);
  const drawn = shapes.flatMap(({ kind, points, dropped }) => ["halo", "line"].map((what) => drawing("polygon", {
    points: points.map(([x, y]) => `${x * width},${y * height}`).join(" "), class: dropped ? `${what} dropped` : what,
    ...(what === "line" && { stroke: colourOf(kind) }),
  })));
  const dotted = shapes.flatMap(({ kind, dots }) =>
    dots.map(([x, y]) => drawing("circle", { cx: x * width, cy: y * height, r: radius, fill: colourOf(kind) })));
  $("overlay").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("overlay").replaceChildren(...drawn, ...dotted, ...shapes.flatMap((shape) => drawName(shape, width, height)));
  $("label-list").replaceChildren(...shapes.map(({ kind, text, dropped, added, word }) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colourOf(kind);
    const change = dropped ? " (label removed)" : added ? " (label added)" : word ? ` (${word})` : "";
    const name = ` ${data.names[kind]}${change} `;
    return element("li", {}, swatch, name, element("code", { textContent: text }));
  }));
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

function slide(to) {
  const share = Math.min(100, Math.max(0, to));
  $("slider").value = share;
  $("after").style.clipPath = `inset(0 0 0 ${share}%)`;
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
    s: () => slide($("slider").value < 50 ? 100 : 0), r: () => decide(shown[current], "reject"),
    k: () => decide(shown[current], "keep"), u: () => decide(shown[current], ""),
  };
  if (event.target === $("slider") && event.key.startsWith("Arrow")) return false;
  keys[event.key]?.();
  return event.key in keys;
}

function galleryKey(event) {
  const card = event.target.closest(".card");
  if (event.key === "/") $("search").focus();
  else if (!card) return false;
  else if (event.key.startsWith("Arrow")) moveFocus(card, event.key);
  else if ("rku".includes(event.key)) decide(+card.dataset.i, { r: "reject", k: "keep", u: "" }[event.key]);
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("select, input[type=search], input[type=number]")) return;
  if ((dialog.open ? dialogKey : galleryKey)(event)) event.preventDefault();
});
$("gallery").addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (card) open(shown.indexOf(+card.dataset.i));
});
for (const id of ["search", "condition", "class", "verdict", "score", "least", "most"])
  $(id).addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(filter));
$("back").addEventListener("click", () => turn(page - 1));
$("forth").addEventListener("click", () => turn(page + 1));
$("page").addEventListener("change", () => turn($("page").value - 1));
$("save").addEventListener("click", save);
$("earlier").addEventListener("click", () => step(-1));
$("later").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => dialog.close());
$("reject").addEventListener("click", () => decide(shown[current], "reject"));
$("keep").addEventListener("click", () => decide(shown[current], "keep"));
$("undo").addEventListener("click", () => decide(shown[current], ""));
$("boxes").addEventListener("change", () => showBoxes($("boxes").checked));
$("slider").addEventListener("input", () => slide(+$("slider").value));
for (const kind of ["pointerdown", "pointermove"])
  $("stage").addEventListener(kind, (event) => {
    if (!event.buttons) return;
    const { left, width } = $("stage").getBoundingClientRect();
    slide(Math.round(((event.clientX - left) / width) * 100));
  });
for (const id of ["before", "after"])
  $(id).addEventListener("error", () => {
    if (!$(id).getAttribute("src")) return;
    $("missing").hidden = false;
    $("missing").textContent = `The ${id === "before" ? "source" : "edit"} cannot be loaded.`;
  });
dialog.addEventListener("close", () => {
  const to = Math.floor(current / PAGE);
  if (to !== page) turn(to);
  focusCard(cards()[current % PAGE]);
});
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
const option = (value, text) => element("option", { value, textContent: text });
$("condition").append(...data.conditions.map((name) => option(name, name)));
const held = new Set([...classesOf.flatMap((kinds) => [...kinds]), ...Object.values(data.added).flat().map(classOf)]);
$("class").append(...data.names.flatMap((name, kind) => (held.has(kind) ? [option(kind, name)] : [])));
$("verdict").append(option("accepted", "accepted"), option("rejected", "rejected"),
  ...data.reasons.flatMap((word) => (word ? [option(`=${word}`, word === "failed" ? word : `rejected: ${word}`)] : [])),
  ...(weak.size ? [option("weak", "to be reviewed")] : []), option("decided", "decided by hand"));
$("score").append(...data.scores.filter((name) => jobs[name].some((value) => value !== null)).map((n) => option(n, n)));
$("honour").textContent = `diffgen export ${runFolder()} --review review.yaml`;
showDecided();
filter();
