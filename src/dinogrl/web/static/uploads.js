// From files to people: sending them, watching the server at work, and offering whom it found.

import { forget, get, queryStrip, upload } from "./api.js";
import { $, complain, el, mover } from "./dom.js";

const STAGES = { "find people": "finding people", "look at pictures": "looking at the pictures", embed: "describing them" };
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
let files = [];
let running = null; // {abort} while an upload or a job runs
let bounds = null;

export function prepareUploads(limits, choose) {
  bounds = limits;
  const drop = $("drop");
  $("files").addEventListener("change", () => take([...$("files").files]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files]);
    });
  }
  $("send").addEventListener("click", () => send(choose));
  $("cancel").addEventListener("click", () => running && running.abort());
  listEarlier(choose);
}

function take(chosen) {
  files = chosen;
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  const size = bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
  $("chosen").textContent = !files.length ? "Drop them here, or choose" : files.length === 1 ? `${files[0].name}, ${size}` : `${files.length} files, ${size}`;
  const wrong = bytes > bounds.body_bytes ? `at most ${Math.floor(bounds.body_bytes / 2 ** 20)} MB are taken` : files.length > bounds.images ? `at most ${bounds.images} pictures are taken` : "";
  complain(wrong);
  $("send").disabled = !files.length || Boolean(wrong) || running !== null;
}

function tell(words, done, total) {
  $("job").hidden = !words;
  if ($("job-said").textContent !== words) $("job-said").textContent = words;
  if (total > 0) $("job-bar").value = done / total;
  else $("job-bar").removeAttribute("value");
}

async function send(choose) {
  complain("");
  $("send").disabled = true;
  const sending = upload(files, $("seen").value, (done, total) => tell(`sending ${Math.round((100 * done) / total)} %`, done, total));
  running = sending;
  try {
    await follow(await sending.answer, choose);
  } catch (error) {
    if (error.message !== "cancelled") complain(error.message);
  }
  running = null;
  tell("");
  $("send").disabled = !files.length;
  listEarlier(choose);
}

async function follow(job, choose) {
  let wanted = true;
  running = {
    abort: () => {
      wanted = false;
      forget(job.id).catch(() => {});
    },
  };
  while (wanted && (job.state === "waiting" || job.state === "running")) {
    const share = job.total ? ` ${Math.floor((100 * job.done) / job.total)} %` : "";
    tell(job.state === "waiting" ? "waiting for its turn" : `${STAGES[job.stage] || "beginning"}${share}`, job.done, job.total);
    await wait(500);
    if (wanted) job = await askUntilAnswered(job);
  }
  if (!wanted) return;
  if (job.state === "failed") throw new Error(job.error);
  offer(job, choose);
}

// A server that is started again goes on with its jobs, so the page waits for it; what it refuses is an end.
async function askUntilAnswered(job) {
  try {
    return await get(`/api/jobs/${job.id}`);
  } catch (error) {
    if (error.status) throw error;
    tell("the server does not answer; waiting for it");
    await wait(2000);
    return job;
  }
}

function offer(job, choose) {
  const buttons = job.queries.map((query) =>
    el(
      "button",
      { type: "button", "aria-pressed": "false", onclick: () => pick(query) },
      query.has_strip ? mover(queryStrip(query.id), query.label) : null,
      `${query.frames} pictures, ${query.modality}`,
    ),
  );
  const pick = (query) => {
    job.queries.forEach((other, i) => buttons[i].setAttribute("aria-pressed", String(other === query)));
    choose({ query: query.id, label: query.label });
  };
  $("query-choice").replaceChildren(...buttons);
  $("query").hidden = false;
  if (job.queries.length) pick(job.queries[0]);
}

async function listEarlier(choose) {
  const jobs = await get("/api/jobs").catch(() => []);
  const going = jobs.find((job) => job.state === "waiting" || job.state === "running");
  const words = (job) => `${job.label} (${job.state === "failed" ? job.error : job.state === "done" ? `${job.queries.length} found` : job.state})`;
  const open = (job) => (job.state === "done" ? offer(job, choose) : resume(job, choose));
  $("earlier-list").replaceChildren(
    ...jobs.map((job) => el("li", {}, el("button", { type: "button", disabled: job.state === "failed", onclick: () => open(job) }, words(job)))),
  );
  $("earlier").hidden = !jobs.length;
  if (going && running === null) resume(going, choose);
}

// A page that was closed, or a server that was started again: what it works on is watched further.
async function resume(job, choose) {
  if (running !== null) return;
  running = { abort: () => {} };
  try {
    await follow(job, choose);
  } catch (error) {
    complain(error.message);
  }
  running = null;
  tell("");
}
