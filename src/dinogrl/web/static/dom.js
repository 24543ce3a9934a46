// Building the page: elements out of words. Text from outside only ever becomes text.

export const $ = (id) => document.getElementById(id);

export function el(tag, facts = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Some frames side by side in one picture, shown one after the other: CSS moves the picture by a frame at a time.
export function mover(address, words) {
  const image = el("img", { alt: words, loading: "lazy", decoding: "async" });
  const box = el("span", { class: "mover" }, image);
  image.addEventListener("load", () => box.classList.add(`f${Math.round((image.naturalWidth / image.naturalHeight) * 2)}`));
  image.addEventListener("error", () => {
    image.remove();
    box.classList.add("none");
  });
  image.src = address;
  return box;
}

export function complain(words) {
  $("alert").textContent = words;
  $("alert").hidden = !words;
  if (words) $("alert").scrollIntoView({ block: "nearest" });
}

export const when = (start, end) => {
  if (!start) return "time unknown";
  const [day, clock] = start.replace("Z", "").split("T");
  const until = end ? end.replace("Z", "").split("T")[1].slice(0, 8) : "";
  return `${day} ${clock.slice(0, 8)}${until && until !== clock.slice(0, 8) ? "–" + until : ""} UTC`;
};

// Never 0 % and never 100 %, for nobody is that sure.
export const perCent = (probability) => {
  if (probability < 0.01) return "under 1 %";
  return probability > 0.99 ? "over 99 %" : `${Math.floor(100 * probability + 0.5)} %`;
};
