// Looking through the gallery for somebody to search with.

import { get, stripOf } from "./api.js";
import { $, complain, el, mover, when } from "./dom.js";

const AT_ONCE = 24;
let offset = 0;

export function prepareShelf(about, choose) {
  $("shelf-camera").append(...Object.keys(about.cameras).sort().map((name) => el("option", { value: name }, name)));
  $("shelf-camera").addEventListener("change", () => show(0, choose));
  $("shelf-back").addEventListener("click", () => show(Math.max(offset - AT_ONCE, 0), choose));
  $("shelf-on").addEventListener("click", () => show(offset + AT_ONCE, choose));
  return () => show(0, choose);
}

async function show(from, choose) {
  try {
    const asked = new URLSearchParams({ offset: from, limit: AT_ONCE, camera: $("shelf-camera").value });
    const found = await get(`/api/tracklets?${asked}`);
    offset = from;
    const buttons = found.tracklets.map((one) =>
      el(
        "button",
        { type: "button", "aria-pressed": "false", title: `${one.id}, ${when(one.start, one.end)}`, onclick: (event) => pick(one, event.currentTarget) },
        mover(stripOf(one.id), `tracklet ${one.id}`),
        `${one.camera}, ${one.modality}`,
      ),
    );
    const pick = (one, button) => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      choose({ tracklet: one.id, label: one.id });
    };
    $("shelf").replaceChildren(...buttons);
    $("shelf-back").disabled = from === 0;
    $("shelf-on").disabled = !found.more;
  } catch (error) {
    complain(error.message);
  }
}
