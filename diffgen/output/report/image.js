"use strict";
// An image of the run, and what a person decided about it. page.py joins this file with gallery.js and dialog.js, as the page's
// policy names one script's hash. Text is set by textContent and attributes only, never as HTML. Styles are set on the
// element's style object: the policy forbids style attributes.
const data = JSON.parse(document.getElementById("data").textContent);
const { jobs, sources } = data;
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
const rowsOf = (s) => sources.label[s].split("\n").filter(Boolean);
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

// A score as text, with the threshold if there is one; in the colour of a fault where it misses it.
function scoreText(name, i, withThreshold) {
  const value = jobs[name][i], threshold = data.thresholds[conditionOf(i)]?.[name], higher = data.scores[name];
  const judged = threshold !== undefined, missed = judged && (higher ? value < threshold : value > threshold);
  const word = missed ? (higher ? "below" : "above") : higher ? "at least" : "at most";
  const text = `${name} ${value}${judged && withThreshold ? ` (${word} ${threshold})` : ""}`;
  return element("span", { className: missed ? "bad" : "", textContent: text });
}

// Shapes of label rows as lists of points, 0 to 1; the same rules as in diffgen/dataset/labels.py.
function shapesOf(rows) {
  const numbers = rows.map((row) => row.split(" ").map(Number));
  const [count, dims] = data.keypoints || [0, 2], pose = count && numbers.every((row) => row.length === 5 + count * dims);
  const boxes = pose || numbers.every((row) => row.length === 5);
  return numbers.map(([kind, ...v]) => {
    const [x, y, w, h] = [v[0], v[1], v[2] / 2, v[3] / 2];
    const points = boxes ? [[x - w, y - h], [x + w, y - h], [x + w, y + h], [x - w, y + h]] : [];
    for (let n = 0; !boxes && n + 1 < v.length; n += 2) points.push([v[n], v[n + 1]]);
    const dots = [];
    for (let n = 4; pose && n < v.length; n += dims)
      if (dims === 3 ? v[n + 2] > 0 : Math.max(v[n], v[n + 1]) > 0) dots.push([v[n], v[n + 1]]);
    return { kind, points, dots };
  });
}

function boxOf({ points }) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const x = Math.min(...xs), y = Math.min(...ys);
  return { x, y, w: Math.max(...xs) - x, h: Math.max(...ys) - y };
}

// [class, size] of each object of label rows: the size is the last of data.sizes that is not larger.
function objectsOf(rows, s) {
  return shapesOf(rows).map((shape) => {
    const { w, h } = boxOf(shape), side = Math.sqrt(w * sources.width[s] * h * sources.height[s]);
    return [shape.kind, data.sizes.findLast(([, least]) => least <= side)?.[0]];
  });
}

const inSource = sources.label.map(() => null); // filled when a filter asks: there may be many
const objectsIn = (i) => {
  const s = sourceOf(i);
  return [...(inSource[s] ??= objectsOf(rowsOf(s), s)), ...objectsOf(addedTo(i), s)];
};

// --- decisions: the run folder's review, overridden by what was decided on this page

const KEY = `diffgen review of ${location.pathname}`;
const here = new Map(); // job id -> word
try {
  const known = new Set(jobs.id);
  for (const [id, word] of Object.entries(JSON.parse(localStorage.getItem(KEY)) || {}))
    if (known.has(id) && ["reject", "keep", ""].includes(word)) here.set(id, word);
} catch { /* no storage, or not our data: decisions last until the page is closed */ }

const decisionOf = (i) => here.get(jobs.id[i]) ?? data.review[jobs.id[i]] ?? "";

function decide(images, word) {
  for (const i of images) if (!failed(i)) here.set(jobs.id[i], word);
  try { localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(here))); } catch { /* as above */ }
  for (const card of cards()) dress(card);
  if (dialog.open) showVerdict();
  $("then").hidden = true; // what was downloaded is not the whole any more
  showDecided();
}

function decisions() {
  return Object.entries({ ...data.review, ...Object.fromEntries(here) }).filter(([, word]) => word).sort();
}

function showDecided() {
  const waiting = [...here].filter(([id, word]) => word !== (data.review[id] ?? "")).length, all = decisions().length;
  const counted = (count) => `${count} ${count === 1 ? "decision" : "decisions"}`;
  $("decided").textContent = waiting ? `${counted(waiting)} not exported yet` : all ? `${counted(all)}, exported` : "No decisions yet";
  $("save").disabled = !waiting && !all;
}

// A name of its own for each download, so that no browser has to number them and the command names the last one.
function save() {
  const name = `review-${new Date().toISOString().slice(0, 19).replace(/\D/g, "")}.yaml`;
  const head = `# Decisions by hand, for: diffgen export OUT --review ${name} (it replaces the review kept there)\n`;
  const text = head + decisions().map(([id, word]) => `"${id}": ${word}\n`).join("");
  const link = element("a", { href: URL.createObjectURL(new Blob([text])), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  $("honour").textContent = `diffgen export ${runFolder()} --review ~/Downloads/${name}`;
  $("then").hidden = false;
}

function runFolder() {
  try {
    const path = decodeURIComponent(location.pathname).replace(/\/[^/]*$/, "");
    if (location.protocol === "file:") return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
  } catch { /* the path is not UTF-8 */ }
  return "OUT";
}
