// Answers: by item, with the time of each; kept in the browser, and sent to the server that the page came from.
const get = id => document.getElementById(id);
const data = JSON.parse(get("data").textContent);
const SLOT = `saesweep rating ${data.study} ${data.rater}`;
const answers = new Map(), unsent = new Set();  // item -> {item, answer, explanation, seconds, at}; answer null: taken back
const served = "answers" in data;
let kept = true;  // whether the browser keeps them

function keep() {
  try {
    localStorage.setItem(SLOT, JSON.stringify([...answers.values()]));
  } catch {  // not allowed, or full
    kept = false;
  }
}
function restore() {
  let own = [];
  try {
    own = JSON.parse(localStorage.getItem(SLOT) ?? "[]");
  } catch {
    kept = false;
  }
  const names = new Set(data.items.map(({item}) => item));
  for (const entry of data.answers ?? []) answers.set(entry.item, entry);
  for (const entry of own) {
    if (!names.has(entry.item) || answers.get(entry.item)?.at >= entry.at) continue;
    answers.set(entry.item, entry);
    if (served) unsent.add(entry.item);
  }
}
function record(item, entry) {
  answers.set(item, {item, ...entry, at: Date.now()});
  if (served) unsent.add(item);
  keep();
  send();
}
const answered = item => Boolean(answers.get(item)?.answer);

let sending = false;
async function send() {
  if (sending || !unsent.size) return;
  sending = true;
  try {
    while (unsent.size) {
      const [item] = unsent, entry = answers.get(item);
      const reply = await fetch(location.pathname, {method: "POST", body: JSON.stringify(entry),
        headers: {"Content-Type": "application/json"}, redirect: "error"});
      if (!reply.ok) throw new Error(reply.status);
      if (answers.get(item) === entry) unsent.delete(item);
    }
    problem("");
  } catch {
    problem("The server does not answer. Your answers are kept in this browser and sent when it does.");
    setTimeout(send, 3000);
  } finally {
    sending = false;
  }
}

function download() {
  const content = {study: data.study, rater: data.rater, saved: new Date().toISOString(), answers: [...answers.values()]};
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], {type: "application/json"}));
  const link = Object.assign(document.createElement("a"), {href: url, download: `ratings_${data.rater}_${data.study}.json`});
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  saved = answers.size && Math.max(...[...answers.values()].map(({at}) => at));
  return link.download;
}
let saved = 0;  // time of the newest answer that was downloaded
const atRisk = () => served ? unsent.size > 0 : !kept && [...answers.values()].some(({at}) => at > saved);
addEventListener("beforeunload", event => {
  if (atRisk()) event.preventDefault();
});
