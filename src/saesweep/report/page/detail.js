// The dialog that shows one SAE: beside the curves where there is room, over them where there is not.
let shown = null;  // the SAE
let opener = null;  // where the focus returns: an element, or the selector of a point, as points are redrawn
const UNLISTED = ["arch", "sparsity", "seed", "model", "site", "layer", "path"];  // shown elsewhere in the dialog

function open(sae, from) {
  const beside = matchMedia("(min-width: 60rem)").matches;
  unmark();
  hover(null);
  shown = sae;
  opener = from.dataset.panel ? `[data-panel="${from.dataset.panel}"][data-sae="${sae}"]` : from;
  document.querySelectorAll(`.point[data-sae="${sae}"], #sae-${sae}`).forEach(found => found.classList.add("shown"));
  document.body.classList.toggle("beside", beside);
  if (!detail.open) beside ? detail.show() : detail.showModal();
  get("detail-title").textContent = name(sae);
  get("detail-body").replaceChildren(...about(sae, get("detail-body").clientWidth));
  detail.scrollTop = 0;
  get("detail-title").focus({preventScroll: true});
  if (!beside) return;
  redraw();
  element(opener)?.scrollIntoView({block: "nearest"});
}
const element = where => typeof where === "string" ? panels.querySelector(where) : where;
function unmark() {
  document.querySelectorAll(".shown").forEach(found => found.classList.remove("shown"));
}
function close() {
  detail.close();
  if (shown === null) return;  // already closed by the browser
  unmark();
  shown = null;
  document.body.classList.remove("beside");
  redraw();
  element(opener)?.focus();
}

function about(sae, width) {
  const info = data.details[sae], [model, site, layer] = places[saes.place[sae]];
  const part = (words, ...more) => more.some(Boolean) ? [el("h3", {textContent: words}), ...more.filter(Boolean)] : [];
  const numbers = heads.filter(key => !UNLISTED.includes(key)).map(key => [key, cell(sae, key)]);
  return [
    el("p", {textContent: `${model}, ${site}, layer ${layer}`}), ...state(sae, info), links(sae, info),
    ...part("Command", el("pre", {tabIndex: 0}, el("code", {textContent: info.command})), copyButton(info.command)),
    ...part("Numbers", list(numbers.filter(([, value]) => value !== "-"))),
    ...part("Read in part", ...(info.parts ? [parts(info.parts)] : [])),
    ...part("Training", ...["fvu", "l0"].map(key => info.curve?.[key] && training(info.curve, key, width, saes.sparsity[sae]))),
    ...part("Firing frequency", ...(info.rates ? firing(info.rates, width) : [])),
    ...part("Configuration", ...configuration(sae)),
  ];
}
function parts(found) {
  const words = part => [`${part.latents} latents`, `l0 ${part.l0}, fvu ${part.fvu}`];
  return list(found.map(words));
}
function firing(rates, width) {
  const on = rates.tokens === null ? "the" : rates.tokens.toLocaleString("en"), seldom = `${rates.rare} fewer than ${rates.few} times`;
  const words = `${rates.never} of ${rates.latents} latents never fired on ${on} held-out tokens, ${seldom}.`;
  return [frequencies(rates, data.edges, width), el("p", {textContent: words})];
}
function state(sae, info) {
  const failed = `Failed: ${info.reason ?? "no reason was recorded"}`;
  const words = {failed, unfinished: `Unfinished, after ${cell(sae, "tokens")} tokens`}[saes.state[sae]];
  return words ? [el("p", {className: "failed", textContent: words})] : [];
}
function configuration(sae) {
  const own = Object.entries(data.config.own).map(([key, values]) => [key, values[sae]]).filter(([, value]) => value !== null);
  const same = Object.entries(data.config.same);
  const summary = el("summary", {textContent: `${same.length} keys are the same for all SAEs`});
  const shared = el("details", {}, summary, list(same));
  return [own.length && list(own), same.length && shared];
}
function links(sae, info) {
  const folder = get("sae-" + sae).cells[heads.indexOf("path")].firstChild.getAttribute("href");
  const out = el("div", {className: "links"}, el("a", {href: folder, textContent: "Folder"}));
  const run = {href: info.wandb, textContent: "W&B run", target: "_blank", rel: "noopener noreferrer"};
  if (info.wandb) out.append(el("a", run));
  const seeds = all.filter(i => ["place", "arch", "target"].every(key => saes[key][i] === saes[key][sae]));
  const other = i => el("button", {
    type: "button", textContent: cell(i, "seed"), ariaLabel: "Seed " + cell(i, "seed"), ariaPressed: String(i === sae),
    onclick: () => open(i, element(opener) ?? get("close")),
  });
  if (seeds.length > 1) out.append(el("span", {}, "Seed ", ...seeds.flatMap(i => [other(i), " "])));
  return out;
}
function copyButton(text) {
  const status = el("span", {role: "status"}), copy = el("button", {type: "button", textContent: "Copy the command"});
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // the clipboard API is not allowed everywhere, as in frames
      getSelection().selectAllChildren(copy.parentElement.previousElementSibling);
      document.execCommand("copy");
    }
    status.textContent = "Copied.";
  });
  return el("div", {className: "links"}, copy, status);
}
