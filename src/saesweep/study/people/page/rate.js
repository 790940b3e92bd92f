// The page: which latent is shown, the answer in the form, and the event listeners.
const form = get("answer"), line = get("explanation"), KEYS = {1: "yes", 2: "maybe", 3: "no", s: "skip"};
const LABELS = {yes: "Which meaning? One line (required)", maybe: "What do you see? One line (optional)",
  no: "What do you see? One line (optional)", skip: "Why do you skip it? (required)", "": "Choose an answer first"};
const MISSING = {yes: "Write the meaning in one line.", skip: "Write why you skip it."};
let place = 0, seconds = 0, since = null;  // time while the page is visible

const choice = () => new FormData(form).get("answer") ?? "";
function choose(value) {
  for (const input of form.elements.answer) input.checked = input.value === value;
  labelled();
}
function labelled() {
  get("explanation-label").textContent = LABELS[choice()];
  line.disabled = !choice();
  line.required = choice() in MISSING;
  complaint("");
}
function problem(words) {
  get("problem").textContent = words;
}
function complaint(words) {
  problem(words);
  line.setAttribute("aria-invalid", String(Boolean(words) && Boolean(choice())));
}
const say = words => get("status").textContent = words;

function open(number) {
  place = number;
  const finished = place >= data.items.length, entry = answers.get(data.items[place]?.item);
  get("progress").max = data.items.length || 1;
  get("progress").value = place;
  get("undo").disabled = place === 0;
  get("examples").hidden = finished;
  get("done").hidden = !finished;
  get("place").textContent = finished ? "Rating" : `Latent ${place + 1} of ${data.items.length}`;
  form.hidden = false;
  form.classList.toggle("finished", finished);
  choose(entry?.before ?? "");
  line.value = entry?.explanation ?? "";
  seconds = entry?.seconds ?? 0;
  since = document.hidden ? null : performance.now();
  if (!finished) show(data.items[place]);
  get("save").hidden = finished && served;
  get("done-words").textContent = served ? "Your answers are with the server. You may close this page."
    : `Save your answers, and send the file ratings_${data.rater}_${data.study}.json to the person who gave you this page.`;
  scrollTo(0, 0);
  get(finished ? "done-title" : "place").focus({preventScroll: true});
}
function elapsed() {
  if (since !== null) seconds += (performance.now() - since) / 1000;
  since = document.hidden ? null : performance.now();
  return Math.round(10 * seconds) / 10;
}
function submit() {
  const answer = choice(), explanation = line.value.trim();
  if (!answer) return complaint("Choose yes, maybe, no or skip.");
  if (MISSING[answer] && !explanation) {
    complaint(MISSING[answer]);
    return line.focus();
  }
  const number = place;
  record(data.items[number].item, {answer, explanation, seconds: elapsed()});
  get("how").open = false;
  open(next(number + 1));
  const warning = kept || served ? "" : " This browser keeps nothing: save your answers before you close the page.";
  say(`Latent ${number + 1}: ${answer}. ${data.items.filter(({item}) => answered(item)).length} rated.${warning}`);
}
// The first from a place on that is not rated; the end if there is none.
function next(from) {
  while (from < data.items.length && answered(data.items[from].item)) from++;
  return from;
}
function undo() {
  if (place === 0) return;
  const {item} = data.items[place - 1], {answer, explanation, seconds} = answers.get(item);
  record(item, {answer: null, before: answer, explanation, seconds});
  open(place - 1);
  say(`Latent ${place + 1}: taken back.`);
}

form.addEventListener("submit", event => {
  event.preventDefault();
  submit();
});
form.addEventListener("change", event => {
  if (event.target.name === "answer") labelled();
});
get("undo").addEventListener("click", undo);
get("save").addEventListener("click", () => say(`Saved as ${download()}.`));
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target === line) {
    if (event.key === "Escape") line.blur();
    return;
  }
  const finished = place >= data.items.length, key = event.key.toLowerCase();
  if (key === "u") undo();
  else if (key in KEYS && !finished) {
    event.preventDefault();  // the key is not typed into the field
    choose(KEYS[key]);
    line.focus();
  } else if (key === "enter" && !finished && !event.target.closest("button, summary, input")) submit();
});
document.addEventListener("visibilitychange", elapsed);
restore();
get("how").open = answers.size === 0;
labelled();
open(next(0));
send();
