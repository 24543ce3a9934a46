// The answers: who they are, what was marked on them, and moving among them by keys.

import { stripOf } from "./api.js";
import { $, el, mover, perCent, when } from "./dom.js";

const marks = new Map(); // id of a tracklet -> "right" or "wrong"
let onMarks = () => {};

export function prepareHits(told) {
  onMarks = told;
  $("hits").addEventListener("keydown", byKey);
}

export const marked = (kind) => [...marks].filter(([, mark]) => mark === kind).map(([id]) => id);

export function clearMarks() {
  marks.clear();
  document.querySelectorAll(".hit").forEach(paint);
  onMarks();
}

export const NO_TRACKLETS = "The gallery is empty. Add tracklets by: dinogrl gallery add";

export function showHits(found, tracklets, lookFor) {
  const cards = found.hits.map((hit) => card(hit, lookFor));
  $("hits").replaceChildren(...cards);
  cards.forEach(paint);
  $("empty").hidden = cards.length > 0;
  $("empty").textContent = tracklets ? "Nothing in the gallery meets the conditions." : NO_TRACKLETS;
}

function card(hit, lookFor) {
  const chance = hit.probability === null ? null : `same person ${perCent(hit.probability)}`;
  const moved = hit.moved_distance === null ? "" : `, after marks ${hit.moved_distance.toFixed(3)}`;
  const facts = el(
    "div",
    { class: "facts" },
    el("b", {}, `${hit.rank}. ${hit.camera}, ${hit.modality}`),
    el("span", {}, when(hit.start, hit.end)),
    chance && el("span", { class: "chance" }, chance),
    chance && el("meter", { class: "meter", min: 0, max: 1, value: hit.probability, "aria-label": chance }),
    el("span", {}, `distance ${hit.distance.toFixed(3)}${moved}`),
    el("span", { class: "id" }, hit.id),
    el(
      "div",
      { class: "marks" },
      el("button", { type: "button", class: "yes", "aria-pressed": "false", onclick: () => toggle(hit.id, "right") }, "Right"),
      el("button", { type: "button", class: "no", "aria-pressed": "false", onclick: () => toggle(hit.id, "wrong") }, "Wrong"),
      el("button", { type: "button", onclick: () => lookFor(hit) }, "Look for this"),
    ),
  );
  const words = `Rank ${hit.rank}, ${hit.camera}, ${hit.modality}, ${chance || `distance ${hit.distance.toFixed(3)}`}`;
  const made = el("li", { class: "hit card", tabindex: "0", "aria-label": words }, mover(stripOf(hit.id), `tracklet ${hit.id}`), facts);
  made.dataset.id = hit.id;
  return made;
}

function toggle(id, mark) {
  set(id, marks.get(id) === mark ? null : mark);
}

function set(id, mark) {
  if (mark) marks.set(id, mark);
  else marks.delete(id);
  document.querySelectorAll(".hit").forEach(paint);
  onMarks();
}

function paint(item) {
  const mark = marks.get(item.dataset.id);
  item.classList.toggle("right", mark === "right");
  item.classList.toggle("wrong", mark === "wrong");
  item.querySelector(".yes").setAttribute("aria-pressed", String(mark === "right"));
  item.querySelector(".no").setAttribute("aria-pressed", String(mark === "wrong"));
}

function byKey(event) {
  const item = event.target.closest(".hit");
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const mark = { r: "right", w: "wrong", u: null }[event.key.toLowerCase()];
  const step = { ArrowRight: 1, ArrowDown: columns(), ArrowLeft: -1, ArrowUp: -columns() }[event.key];
  if (mark !== undefined) set(item.dataset.id, mark);
  else if (step !== undefined) {
    const items = [...$("hits").children];
    const next = items[items.indexOf(item) + step];
    if (next) next.focus();
  } else return;
  event.preventDefault();
}

const columns = () => getComputedStyle($("hits")).gridTemplateColumns.split(" ").length;
