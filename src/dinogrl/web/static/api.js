// Talking to the server. Whatever it refuses becomes an error with its own words.

async function refusal(answer) {
  const told = await answer.json().catch(() => ({}));
  return Object.assign(new Error(told.detail || `the server answers ${answer.status}`), { status: answer.status });
}

async function call(method, address, body) {
  const options = { method, credentials: "same-origin" };
  if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  const answer = await fetch(address, options).catch(() => {
    throw new Error("the server does not answer");
  });
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

export const get = async (address) => (await call("GET", address)).json();
export const post = async (address, body) => (await call("POST", address, body)).json();
export const signIn = (token) => call("POST", "/api/session", { token });
export const signOut = () => call("DELETE", "/api/session");
export const forget = (id) => call("DELETE", `/api/jobs/${id}`);
export const stripOf = (id) => `/api/tracklets/strip?id=${encodeURIComponent(id)}`;
export const queryStrip = (id) => `/api/queries/${id}/strip`;

export async function download(address, body) {
  const answer = await call("POST", address, body);
  const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") || "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name ? name[1] : "case";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// fetch cannot tell how much of a body has gone out; XMLHttpRequest can.
export function upload(files, modality, onProgress) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  form.append("modality", modality);
  const request = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    request.addEventListener("load", () => {
      let told = {};
      try {
        told = JSON.parse(request.responseText);
      } catch {
        told = { detail: `the server answers ${request.status}` };
      }
      if (request.status === 202) resolve(told);
      else reject(Object.assign(new Error(told.detail), { status: request.status }));
    });
    request.addEventListener("error", () => reject(new Error("the upload broke off; the server may have refused it for its size")));
    request.addEventListener("abort", () => reject(new Error("cancelled")));
  });
  request.open("POST", "/api/queries");
  request.send(form);
  return { answer, abort: () => request.abort() };
}
