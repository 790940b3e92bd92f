// The page: the selection, which the form holds, and the event listeners.
const get = id => document.getElementById(id);
const data = JSON.parse(get("data").textContent), {saes, archs, places} = data, all = [...saes.arch.keys()];
const form = get("controls"), panels = get("panels"), card = get("card"), detail = get("detail");
const heads = [...document.querySelectorAll("#numbers thead th")].map(head => head.textContent);
const cell = (sae, key) => get("sae-" + sae).cells[heads.indexOf(key)].textContent;  // numbers are read from the table
const style = sae => archs[saes.arch[sae]], styleOf = name => archs.find(([arch]) => arch === name);  // name and Style of style.py
const KEYS = ["arch", "site", "layer", "model"], VARIED = Object.keys(data.varied);  // settings that tell curves apart
let selected = {};

function list(pairs) {
  return el("dl", {}, ...pairs.flatMap(([key, value]) => [el("dt", {textContent: key}), el("dd", {textContent: value})]));
}

function controls() {
  const compared = ["fvu", "delta_loss"].filter(key => data.metrics.includes(key));
  if (compared.length === 2) get("metric").append(new Option("FVU and delta loss", compared.join(" ")));
  for (const key of data.metrics) get("metric").append(new Option(data.labels[key], key));
  if (places.length > 1 && compared.length) get("metric").value = compared[0];  // one panel per hook point
  const column = {model: 0, site: 1, layer: 2};
  for (const key of KEYS) {
    const values = key === "arch" ? archs.map(([name]) => name) : [...new Set(places.map(place => place[column[key]]))];
    if (key === "layer") values.sort((a, b) => a - b);
    if (key === "arch" || values.length > 1) form.append(checkboxes(key, values));
  }
  for (const key of VARIED) form.append(checkboxes(key, [...new Set(data.varied[key])].filter(value => value !== null)));
  form.addEventListener("change", update);
  form.hidden = get("help").hidden = !all.length;
}
function checkboxes(key, values) {
  const boxes = values.map(value => {
    const [, colour, marker, dash, hollow] = key === "arch" ? styleOf(value) : [], width = VARIED.length ? 34 : 14;
    const line = !hollow && (dash?.length || VARIED.length) ? [stroke(`M0 7H${width}`, colour, dash)] : [];
    const size = {width, height: 14, "aria-hidden": "true"};
    const drawn = marker ? [svg("svg", size, ...line, mark(marker, colour, width / 2, 7, 4.6, hollow))] : [];
    return el("label", {}, el("input", {type: "checkbox", name: key, value, checked: true}), ...drawn, value);
  });
  const upper = key[0].toUpperCase() + key.slice(1), several = VARIED.length ? "Curve" : "Architecture";
  const title = key === "arch" ? several : VARIED.includes(key) && key !== "architecture" ? key : upper;
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

function update() {
  const values = new FormData(form);
  selected = {metrics: values.get("metric")?.split(" ") ?? [], log: values.has("log")};
  for (const key of [...KEYS, ...VARIED]) selected[key] = form.elements[key] && new Set(values.getAll(key));
  document.querySelectorAll("[data-model], [data-arch], [data-metric]").forEach(e => e.hidden = !isSelected(e.dataset));
  const compared = key => document.querySelector(`[data-metric="${key}"]`);
  if (get("uncompared")) get("uncompared").hidden = selected.metrics.some(compared);
  draw();
}
function isSelected(set) {
  const holds = (key, value) => value === undefined || !selected[key] || selected[key].has(value);
  const shown = !set.metric || selected.metrics.includes(set.metric);
  const of = name => VARIED.every(key => holds(key, data.varied[key][archs.findIndex(([arch]) => arch === name)] ?? undefined));
  return shown && KEYS.every(key => holds(key, set[key])) && holds("arch", set.other) && of(set.arch) && of(set.other);
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
