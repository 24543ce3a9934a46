// The page: who is looked for, under which conditions, what was found, and what becomes of it.

import { download, get, post, signIn, signOut } from "./api.js";
import { $, complain, el } from "./dom.js";
import { clearMarks, marked, NO_TRACKLETS, prepareHits, showHits } from "./hits.js";
import { prepareShelf } from "./shelf.js";
import { prepareUploads } from "./uploads.js";

let query = null; // {query or tracklet, label}
let search = null; // id of the search whose answers are shown
let stock = null; // what the server told of the gallery when the page was opened

function choose(chosen) {
  if (query && (query.query !== chosen.query || query.tracklet !== chosen.tracklet)) clearMarks();
  query = chosen;
  $("search").disabled = false;
}

function conditions() {
  const checked = (id) => [...$(id).querySelectorAll("input:checked")].map((box) => box.value);
  const time = (id) => ($(id).value ? `${$(id).value}Z` : null);
  return { cameras: checked("cameras"), modalities: checked("modalities"), collections: checked("collections"), after: time("after"), before: time("before") };
}

async function ask(withMarks) {
  if (!query) return;
  complain("");
  const { label, ...whom } = query;
  const marks = withMarks ? { right: marked("right"), wrong: marked("wrong") } : {};
  $("search").disabled = $("again").disabled = true;
  try {
    const found = await post("/api/search", { ...whom, ...marks, top: Number($("top").value) || 24, conditions: conditions(), case: $("case").value });
    search = found.id;
    $("tools").hidden = false;
    $("found").textContent = `${found.hits.length} answers for ${label} (${found.query.modality})`;
    const order = withMarks
      ? "Ordered by the query moved towards what was marked right and away from what was marked wrong; wrong ones are left out. Distance and probability are still those of the query itself."
      : "Nearest first.";
    $("caution").textContent = `${order} ${learnedFrom(found.hits)}`;
    showHits(found, stock.tracklets, (hit) => {
      choose({ tracklet: hit.id, label: hit.id });
      ask(false);
    });
    $("results").focus({ preventScroll: true });
    if (matchMedia("(max-width: 52rem)").matches) $("results").scrollIntoView();
  } catch (error) {
    complain(error.message);
  }
  $("search").disabled = false;
  countMarks();
}

function learnedFrom(hits) {
  if (!hits.length) return "";
  if (stock.calibration === "none") return "No probability: the model was not calibrated on enough people.";
  if (!hits.some((hit) => hit.probability !== null)) return "";
  return `Probability learned from ${stock.calibration}, other footage than this, taking ${Number((100 * stock.prior).toPrecision(3))} % of the answers to be right.`;
}

function countMarks() {
  const right = marked("right").length;
  const wrong = marked("wrong").length;
  $("again").textContent = right + wrong ? `Search again with ${right} right, ${wrong} wrong` : "Search again with marks";
  $("again").disabled = $("unmark").disabled = !(right + wrong);
}

async function write(form) {
  complain("");
  try {
    await download("/api/export", { search, right: marked("right"), wrong: marked("wrong"), note: $("note").value, form });
  } catch (error) {
    complain(error.message);
  }
}

function offerConditions(about) {
  const boxes = (counts) => Object.entries(counts).sort().map(([name, count]) => el("label", {}, el("input", { type: "checkbox", value: name }), `${name} (${count})`));
  for (const [id, counts] of [["cameras", about.cameras], ["modalities", about.modalities], ["collections", about.collections]]) {
    $(id).replaceChildren(...boxes(counts));
  }
  $("conditions").addEventListener("change", () => {
    const { cameras, modalities, collections, after, before } = conditions();
    const count = [...cameras, ...modalities, ...collections, after, before].filter(Boolean).length;
    $("conditions-said").textContent = count ? `${count} set` : "";
  });
}

async function open() {
  let about;
  try {
    about = await get("/api/gallery");
  } catch (error) {
    $("sign-in").hidden = error.status !== 401;
    if (error.status === 401) $("token").focus();
    else complain(error.message);
    return;
  }
  $("sign-in").hidden = true;
  $("work").hidden = $("motion").hidden = false;
  stock = about;
  $("sign-out").hidden = !about.signed_in;
  const counted = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
  const cameras = Object.keys(about.cameras).length;
  const kept = about.expire_after_seconds ? `, kept ${Math.round(about.expire_after_seconds / 8640) / 10} days` : "";
  $("stock").textContent = `${counted(about.tracklets, "tracklet")} of ${counted(cameras, "camera")}${kept}${about.signed_in ? `, signed in as ${about.who}` : ""}`;
  if (!about.tracklets) $("empty").textContent = NO_TRACKLETS;
  offerConditions(about);
  prepareUploads(about.bounds, choose);
  const showShelf = prepareShelf(about, (chosen) => {
    $("query").hidden = true;
    choose(chosen);
  });
  for (const radio of document.getElementsByName("source")) {
    radio.addEventListener("change", () => {
      $("from-upload").hidden = radio.value !== "upload";
      $("from-gallery").hidden = radio.value !== "gallery";
      if (radio.value === "gallery") showShelf();
    });
  }
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  complain("");
  try {
    await signIn($("token").value);
    $("token").value = "";
    await open();
  } catch (error) {
    complain(error.message);
  }
});
$("sign-out").addEventListener("click", async () => {
  await signOut().catch(() => {});
  location.reload();
});
$("motion").addEventListener("click", () => {
  const still = document.body.classList.toggle("still");
  $("motion").setAttribute("aria-pressed", String(!still));
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(false);
});
$("again").addEventListener("click", () => ask(true));
$("unmark").addEventListener("click", clearMarks);
$("export-html").addEventListener("click", () => write("html"));
$("export-zip").addEventListener("click", () => write("zip"));
prepareHits(countMarks);
open();
