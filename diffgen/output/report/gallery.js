// The gallery: a row for each source, in front of the images that were made of it.
const ROWS = 24; // on a page
let rows = []; // lists of images, one for each source that has some to show
let shown = []; // the images of all rows, in that order
let page = 0;
const chosen = new Set(); // images selected, all of them in `shown`
let anchor = 0; // the image selected last

function matches() {
  const [search, condition, kind, size, verdict] =
    ["search", "condition", "class", "size", "verdict"].map((id) => $(id).value);
  const [least, most] = ["least", "most"].map((id) => parseFloat($(id).value));
  const score = jobs[$("score").value] ?? [], words = search.toLowerCase();
  const verdicts = {
    accepted: (i) => reasonOf(i) === "",
    rejected: (i) => reasonOf(i) !== "" && !failed(i),
    weak: (i) => weak.has(i) && decisionOf(i) === "",
    decided: (i) => decisionOf(i) !== "",
  };
  const wanted = ([itsKind, itsSize]) => (!kind || itsKind === +kind) && (!size || itsSize === size);
  return (i) =>
    (!words || nameOf(i).toLowerCase().includes(words) || jobs.id[i].startsWith(words)) &&
    (!condition || conditionOf(i) === condition) &&
    ((!kind && !size) || objectsIn(i).some(wanted)) &&
    (!verdict || (verdicts[verdict] ?? ((j) => `=${reasonOf(j)}` === verdict))(i)) &&
    (isNaN(least) || (score[i] ?? -Infinity) >= least) &&
    (isNaN(most) || (score[i] ?? Infinity) <= most);
}

// Sorting puts a source where its first image comes, and its images in order; those without the score come last.
function filter() {
  const score = jobs[$("score").value] ?? [], way = +$("sort").value;
  const images = [...jobs.id.keys()].filter(matches());
  const rank = (i) => ((score[i] ?? null) === null ? Infinity : way * score[i]);
  if (way) images.sort((i, j) => rank(i) - rank(j));
  rows = [...Map.groupBy(images, sourceOf).values()];
  shown = rows.flat();
  const kept = new Set(shown);
  for (const i of chosen) if (!kept.has(i)) chosen.delete(i);
  turn(0);
}

const cardOf = (i) => document.querySelector(`.card[data-i="${i}"]`);
const cards = () => [...document.querySelectorAll(".card")];

function dress(card) {
  const i = +card.dataset.i, verdict = verdictText(i), name = `${conditionOf(i)} made of ${nameOf(i)}`;
  const [image, , said] = card.children, box = card.nextSibling;
  card.dataset.decision = decisionOf(i);
  said.textContent = verdict;
  said.className = /^(accepted|kept)/.test(verdict) && !verdict.includes("rejected") ? "good" : "bad";
  image.alt = `${name}, ${verdict}`;
  box.checked = chosen.has(i);
  box.setAttribute("aria-label", `select ${name}`);
}

function picture(src, i) {
  const image = element("img", { loading: "lazy", decoding: "async", src }), s = sourceOf(i);
  image.style.aspectRatio = Math.max(0.75, sources.width[s] / sources.height[s]);
  return image;
}

function drawCard(i) {
  const score = $("score").value, known = (jobs[score]?.[i] ?? null) !== null;
  const button = element("button", { type: "button", className: "card", tabIndex: i === shown[page * ROWS] ? 0 : -1 },
    picture(failed(i) ? sourceImage(i) : imageOf(i), i), element("span", { textContent: conditionOf(i) }), element("span"),
    ...(known ? [scoreText(score, i)] : []));
  button.classList.toggle("failed", failed(i));
  button.dataset.i = i;
  const place = element("div", {}, button, element("input", { type: "checkbox", tabIndex: -1 }));
  dress(button);
  return place;
}

function drawRow(images) {
  const [i] = images, s = sourceOf(i), src = sourceImage(i);
  const source = element("figure", {}, Object.assign(picture(src, i), { alt: `source ${nameOf(i)}` }),
    element("figcaption", { textContent: `source, ${sources.width[s]} × ${sources.height[s]}` }));
  return element("li", {}, element("p", { className: "name", title: nameOf(i), textContent: nameOf(i) }),
    element("div", { className: "row" }, ...(src ? [source] : []), ...images.map(drawCard)));
}

const pages = () => Math.max(1, Math.ceil(rows.length / ROWS));

function turn(to) {
  page = Math.min(pages() - 1, Math.max(0, to || 0));
  $("gallery").replaceChildren(...rows.slice(page * ROWS, (page + 1) * ROWS).map(drawRow));
  const first = cards()[0];
  if (first) first.tabIndex = 0;
  $("count").textContent = `${shown.length} of ${jobs.id.length} images, page ${page + 1} of ${pages()}`;
  Object.assign($("page"), { value: page + 1, max: pages() });
  $("back").disabled = page === 0;
  $("forth").disabled = page + 1 >= pages();
  showChosen();
}

function focusCard(card) {
  if (!card) return;
  for (const other of cards()) other.tabIndex = other === card ? 0 : -1;
  card.focus();
}

// Up and down: to the nearest card of the nearest line.
function moveFocus(card, key) {
  const all = cards(), sideways = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (sideways) return focusCard(all[all.indexOf(card) + sideways]);
  const from = card.getBoundingClientRect(), way = key === "ArrowDown" ? 1 : -1;
  const far = (other) => {
    const { x, y } = other.getBoundingClientRect(), down = way * (y - from.y);
    return down < from.height / 2 ? Infinity : 10 * down + Math.abs(x - from.x);
  };
  const nearest = all.reduce((best, other) => (far(other) < far(best) ? other : best));
  if (far(nearest) < Infinity) focusCard(nearest);
}

// --- selected images

function choose(i, on, upTo) {
  const [from, to] = [shown.indexOf(anchor), shown.indexOf(i)].sort((a, b) => a - b);
  for (const j of upTo && from >= 0 ? shown.slice(from, to + 1) : [i]) on ? chosen.add(j) : chosen.delete(j);
  anchor = i;
  showChosen();
}

function showChosen() {
  for (const card of cards()) card.nextSibling.checked = chosen.has(+card.dataset.i);
  $("selection").hidden = !chosen.size;
  $("chosen").textContent = `${chosen.size} selected`;
  $("choose-all").disabled = chosen.size === shown.length;
}

// --- events

function galleryKey(event) {
  const card = event.target.closest(".card"), i = +card?.dataset.i, key = event.key.toLowerCase();
  if (key === "/") $("search").focus();
  else if (!card) return false;
  else if (event.key.startsWith("Arrow")) moveFocus(card, event.key);
  else if (key === "x") choose(i, event.shiftKey || !chosen.has(i), event.shiftKey);
  else if ("rku".includes(key)) decide(chosen.has(i) ? chosen : [i], { r: "reject", k: "keep", u: "" }[key]);
  else return false;
  return true;
}

$("gallery").addEventListener("click", (event) => {
  const card = event.target.closest(".card"), box = event.target.closest("input");
  if (box) choose(+box.previousSibling.dataset.i, box.checked, event.shiftKey);
  else if (card) open(shown.indexOf(+card.dataset.i));
});
$("choose-all").addEventListener("click", () => {
  for (const i of shown) chosen.add(i);
  showChosen();
});
$("choose-none").addEventListener("click", () => {
  chosen.clear();
  showChosen();
});
for (const button of document.querySelectorAll("#selection [data-word]"))
  button.addEventListener("click", () => decide(chosen, button.dataset.word));
for (const id of ["search", "condition", "class", "size", "verdict", "score", "least", "most", "sort"])
  $(id).addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(filter));
$("back").addEventListener("click", () => turn(page - 1));
$("forth").addEventListener("click", () => turn(page + 1));
$("page").addEventListener("change", () => turn($("page").value - 1));
$("save").addEventListener("click", save);
