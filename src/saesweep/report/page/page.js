// The page: what is chosen, and who listens. The form itself holds the choice.
const get = id => document.getElementById(id);
const data = JSON.parse(get("data").textContent), {saes, archs, places} = data, all = [...saes.arch.keys()];
const form = get("controls"), panels = get("panels"), card = get("card"), detail = get("detail");
const heads = [...document.querySelectorAll("#numbers thead th")].map(head => head.textContent);
const cell = (sae, key) => get("sae-" + sae).cells[heads.indexOf(key)].textContent;  // the table is what numbers are read from
const look = sae => archs[saes.arch[sae]], lookOf = name => archs.find(([arch]) => arch === name);  // name, colour, marker
const KEYS = ["arch", "site", "layer", "model"];
let chosen = {};

function list(pairs) {
  return el("dl", {}, ...pairs.flatMap(([key, value]) => [el("dt", {textContent: key}), el("dd", {textContent: value})]));
}

function controls() {
  const both = ["fvu", "delta_loss"].filter(key => data.metrics.includes(key));
  if (both.length === 2) get("metric").append(new Option("FVU and delta loss", both.join(" ")));
  for (const key of data.metrics) get("metric").append(new Option(data.words[key], key));
  if (places.length > 1 && both.length) get("metric").value = both[0];  // two panels per place would be too many
  const of = {model: 0, site: 1, layer: 2};
  for (const key of KEYS) {
    const values = key === "arch" ? archs.map(([name]) => name) : [...new Set(places.map(place => place[of[key]]))];
    if (key === "layer") values.sort((a, b) => a - b);
    if (key === "arch" || values.length > 1) form.append(choice(key, values));
  }
  form.addEventListener("change", update);
  form.hidden = get("help").hidden = !all.length;
}
function choice(key, values) {
  const boxes = values.map(value => {
    const drawn = key === "arch" ? [svg("svg", {width: 14, height: 14, "aria-hidden": "true"}, legend(value))] : [];
    return el("label", {}, el("input", {type: "checkbox", name: key, value, checked: true}), ...drawn, value);
  });
  const title = key === "arch" ? "Architecture" : key[0].toUpperCase() + key.slice(1);
  const field = el("fieldset", {}, el("legend", {textContent: title}), ...boxes);
  const toggle = () => {
    const inputs = [...field.querySelectorAll("input")], on = !inputs.every(input => input.checked);
    inputs.forEach(input => input.checked = on);
    update();
  };
  const words = {textContent: "all or none", ariaLabel: `${title}: all or none`};
  if (values.length > 4) field.append(el("button", {type: "button", className: "all", onclick: toggle, ...words}));
  return field;
}
const legend = arch => mark(lookOf(arch)[2], lookOf(arch)[1], 7, 7, 4.6);

function update() {
  const said = new FormData(form);
  chosen = {metrics: said.get("metric")?.split(" ") ?? [], log: said.has("log")};
  for (const key of KEYS) chosen[key] = form.elements[key] && new Set(said.getAll(key));
  for (const part of document.querySelectorAll("[data-model], [data-arch], [data-metric]")) part.hidden = !fits(part.dataset);
  const compared = key => document.querySelector(`[data-metric="${key}"]`);
  if (get("uncompared")) get("uncompared").hidden = chosen.metrics.some(compared);
  draw();
}
function fits(set) {
  const holds = (key, value) => value === undefined || !chosen[key] || chosen[key].has(value);
  const shows = !set.metric || chosen.metrics.includes(set.metric);
  return shows && KEYS.every(key => holds(key, set[key])) && holds("arch", set.other);
}

controls();
update();
performance.mark("drawn");
new ResizeObserver(redraw).observe(panels);
addEventListener("scroll", () => hover(under?.group === document.activeElement ? under : null), {passive: true});
document.addEventListener("click", event => {
  const link = event.target.closest("a[data-sae]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  open(+link.dataset.sae, link);
});
document.addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  hover(null);
  close();
});
detail.addEventListener("close", close);
get("close").addEventListener("click", close);
