// The dialog that shows one SAE: beside the curves where there is room, over them where there is not.
let shown = null;  // the SAE
let opener = null;  // what the focus goes back to: an element, or a point's selector, as points are drawn anew
const UNLISTED = ["arch", "sparsity", "seed", "model", "site", "layer", "path"];  // said elsewhere in the dialog

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
  find(opener)?.scrollIntoView({block: "nearest"});
}
const find = where => typeof where === "string" ? panels.querySelector(where) : where;
function unmark() {
  document.querySelectorAll(".shown").forEach(found => found.classList.remove("shown"));
}
function close() {
  detail.close();
  if (shown === null) return;  // the browser's own way of closing has been here
  unmark();
  shown = null;
  document.body.classList.remove("beside");
  redraw();
  find(opener)?.focus();
}

function about(sae, width) {
  const told = data.details[sae], [model, site, layer] = places[saes.place[sae]];
  const part = (words, ...more) => more.some(Boolean) ? [el("h3", {textContent: words}), ...more.filter(Boolean)] : [];
  const numbers = heads.filter(key => !UNLISTED.includes(key)).map(key => [key, cell(sae, key)]);
  return [
    el("p", {textContent: `${model}, ${site}, layer ${layer}`}), ...state(sae, told), links(sae, told),
    ...part("The command that made it", el("pre", {tabIndex: 0}, el("code", {textContent: told.command})), copier(told.command)),
    ...part("Numbers", list(numbers.filter(([, value]) => value !== "-"))),
    ...part("Training", ...["fvu", "l0"].map(key => told.curve?.[key] && training(told.curve, key, width, saes.sparsity[sae]))),
    ...part("Firing frequency", ...(told.rates ? firing(told.rates, width) : [])),
    ...part("Configuration", ...configuration(sae)),
  ];
}
function firing(rates, width) {
  const words = `${rates.never} of ${rates.latents} latents never fired on the evaluation tokens.`;
  return [frequencies(rates, data.edges, width), el("p", {textContent: words})];
}
function state(sae, told) {
  const failed = `Failed: ${told.reason ?? "no reason was written"}`;
  const words = {failed, unfinished: `Unfinished, after ${cell(sae, "tokens")} tokens`}[saes.state[sae]];
  return words ? [el("p", {className: "failed", textContent: words})] : [];
}
function configuration(sae) {
  const own = Object.entries(data.config.own).map(([key, values]) => [key, values[sae]]).filter(([, value]) => value !== null);
  const same = Object.entries(data.config.same);
  const summary = el("summary", {textContent: `${same.length} keys are the same for all SAEs here`});
  const shared = el("details", {}, summary, list(same));
  return [own.length && list(own), same.length && shared];
}
function links(sae, told) {
  const folder = get("sae-" + sae).cells[heads.indexOf("path")].firstChild.getAttribute("href");
  const out = el("div", {className: "links"}, el("a", {href: folder, textContent: "Folder"}));
  const run = {href: told.wandb, textContent: "W&B run", target: "_blank", rel: "noopener noreferrer"};
  if (told.wandb) out.append(el("a", run));
  const alike = all.filter(i => ["place", "arch", "aim"].every(key => saes[key][i] === saes[key][sae]));
  const other = i => el("button", {
    type: "button", textContent: cell(i, "seed"), ariaLabel: "Seed " + cell(i, "seed"), ariaPressed: String(i === sae),
    onclick: () => open(i, find(opener) ?? get("close")),
  });
  if (alike.length > 1) out.append(el("span", {}, "Seed ", ...alike.flatMap(i => [other(i), " "])));
  return out;
}
function copier(text) {
  const said = el("span", {role: "status"}), copy = el("button", {type: "button", textContent: "Copy the command"});
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // not allowed everywhere, as in frames: the old way
      getSelection().selectAllChildren(copy.parentElement.previousElementSibling);
      document.execCommand("copy");
    }
    said.textContent = "Copied.";
  });
  return el("div", {className: "links"}, copy, said);
}
