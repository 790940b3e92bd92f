// The panels: per hook point and metric the curves with their bands, and a point per SAE.
const STATES = ["failed", "unfinished"], ROW = 18;  // each a row of marks below the curves: at the target L0, or at the left
let drawnAt = 0, under = null;  // the width of the panels; the point under the pointer or in focus

function draw() {
  const active = document.activeElement.closest?.(".point")?.dataset;
  const visible = places.flatMap(([model, site, layer], i) => isSelected({model, site, layer}) ? [i] : []);
  const ids = all.filter(i => visible.includes(saes.place[i]) && isSelected({arch: style(i)[0]}));
  const panel = (place, metric) => [place, metric, el("section", {}, el("h3", {textContent: places[place][3]}))];
  const sections = visible.flatMap(place => selected.metrics.map(metric => panel(place, metric)));
  const axis = l0Axis(ids.map(i => saes.state[i] === "finished" ? saes.l0[i] : saes.sparsity[i]).filter(v => v > 0));
  const left = ids.some(i => STATES.includes(saes.state[i])) ? 74 : 50;
  panels.classList.toggle("few", sections.length < 3);
  panels.replaceChildren(...sections.map(s => s[2]));
  drawnAt = panels.clientWidth;
  if (!ids.length) panels.replaceChildren(el("p", {textContent: all.length ? "Nothing is selected." : "There are no SAEs yet."}));
  else for (const [place, metric, section] of sections)
    section.append(drawPanel(place, metric, ids.filter(i => saes.place[i] === place), axis, left, section.clientWidth));
  if (active) element(`[data-panel="${active.panel}"][data-sae="${active.sae}"]`)?.focus({preventScroll: true});
}
function redraw() {
  if (Math.abs(panels.clientWidth - drawnAt) > 1) draw();
}
// the same in all panels, and wide enough to hold a power of two
function l0Axis(l0) {
  if (!l0.length) return [8, 128];
  const low = Math.min(...l0) / 1.25, high = Math.max(...l0) * 1.25, widen = Math.max(1, Math.sqrt(2.05 * low / high));
  return [low / widen, high * widen];
}

function drawPanel(place, metric, ids, axis, left, width) {
  const {log} = selected, height = Math.round(Math.min(380, Math.max(240, width * .62))), values = saes[metric];
  const drawn = ids.filter(i => saes.l0[i] > 0 && values[i] !== null && !(log && values[i] <= 0));
  const rows = STATES.filter(state => ids.some(i => saes.state[i] === state));
  const box = {left, right: width - 12, top: 24, floor: height - 40}, bottom = box.floor - ROW * rows.length;
  const lines = data.lines[metric][place].filter(line => isSelected({arch: line.arch}));
  const ys = drawn.length ? span(yValues(drawn.map(i => values[i]), lines), log) : [.1, 1];
  const x = scale(axis, box.left, box.right, true), y = scale(ys, bottom, box.top, log);
  const label = `${data.labels[metric]} against ${data.labels.l0}, ${places[place][3]}`;
  const out = svg("svg", {width, height, role: "group", class: "points", "aria-label": label});
  const xs = powersOfTwo(axis, Math.max(3, Math.min(7, width / 48))).map(([v, words]) => [x(v), words]);
  const ticks = (log ? logTicks(ys) : evenTicks(ys)).map(([v, words]) => [y(v), words]);
  out.append(frame(box, xs, ticks.filter(([at]) => !rows.length || at < bottom - 8), data.labels.l0, data.labels[metric]));
  out.append(...rowNames(rows, box, bottom), curves(lines, x, y, box, bottom, width));
  const own = drawn.filter(i => !style(i)[4]);  // without the hollow points, which are on no line
  const repeated = lines.reduce((sum, line) => sum + line.l0.length, 0) < own.length;  // several seeds: the means stand out
  if (repeated) out.append(...means(lines, x, y));
  drawn.sort((a, b) => saes.arch[a] - saes.arch[b] || saes.l0[a] - saes.l0[b]);
  const points = drawn.map(i => point(out, i, x(saes.l0[i]), y(values[i]), repeated));
  rows.forEach((state, row) => {
    points.push(...withoutResults(out, ids.filter(i => saes.state[i] === state), state, x, box.left, bottom + ROW * (row + .5)));
  });
  const lost = log ? ids.filter(i => values[i] !== null && values[i] <= 0).length : 0;
  if (lost) out.append(svg("text", {x: box.right, y: box.top + 10, "text-anchor": "end"}, `${lost} at or below 0 not shown`));
  listen(out, points, `${place} ${metric}`);
  return out;
}
function rowNames(rows, box, bottom) {
  if (!rows.length) return [];
  const name = (state, row) => ({x: box.left - 6, y: bottom + ROW * row + 13, "text-anchor": "end", "aria-hidden": "true"});
  const line = svg("path", {class: "grid", d: `M${box.left} ${bottom}H${box.right}`});
  return [line, ...rows.map((state, row) => svg("text", name(state, row), state))];
}
// the values the y axis covers: the points, and the bands up to half of their range beyond them
function yValues(values, lines) {
  const low = Math.min(...values), high = Math.max(...values), more = .5 * (high - low);
  const least = selected.log ? Math.max(low - more, low / 2) : low - more;
  const ends = lines.flatMap(line => [...line.low, ...line.high]).filter(v => v !== null);
  return [...values, ...ends.map(v => Math.min(high + more, Math.max(least, v)))];
}

function curves(lines, x, y, box, bottom, width) {
  const top = box.top - 6, height = bottom - top, frame = {x: 0, y: top, width, height, viewBox: `0 ${top} ${width} ${height}`};
  const inside = svg("svg", {...frame, overflow: "hidden", "aria-hidden": "true"});
  const at = v => y(selected.log ? Math.max(v, 1e-12) : v);
  for (const line of lines) {
    const known = line.l0.flatMap((l0, i) => line.low[i] === null || line.high[i] === null ? [] : [i]);
    const side = (ends, order) => order.map(i => [x(line.l0[i]), at(ends[i])]);
    const around = [...side(line.low, known), ...side(line.high, [...known].reverse())];
    if (known.length > 1) inside.append(svg("path", {class: "band", fill: styleOf(line.arch)[1], d: path(around) + "Z"}));
  }
  for (const line of lines.filter(line => line.l0.length)) {
    const points = line.l0.map((l0, i) => [x(l0), at(line.mean[i])]);
    inside.append(stroke(path(points), styleOf(line.arch)[1], styleOf(line.arch)[3]));
  }
  return inside;
}
function stroke(d, colour, dash) {
  return svg("path", {class: "line", stroke: colour, d, ...dash?.length ? {"stroke-dasharray": dash.join(" ")} : {}});
}
function means(lines, x, y) {
  return lines.flatMap(line => {
    const [, colour, marker] = styleOf(line.arch), drawn = [...line.l0.keys()].filter(i => !selected.log || line.mean[i] > 0);
    return drawn.map(i => mark(marker, colour, x(line.l0[i]), y(line.mean[i]), 4.4, false, "mean"));
  });
}
function point(out, sae, x, y, repeated) {
  const [, colour, marker, , hollow] = style(sae), seed = repeated && !hollow;
  return button(out, sae, x, y, mark(marker, colour, x, y, seed ? 2.7 : 4.4, hollow, seed ? "mark seed" : "mark"));
}
function button(out, sae, x, y, drawn) {
  const label = `${name(sae)}: ${brief(sae).map(([key, value]) => `${key} ${value}`).join(", ")}`;
  const ring = svg("circle", {class: "ring", cx: x.toFixed(1), cy: y.toFixed(1), r: 9});
  const group = svg("g", {class: "point", role: "button", tabindex: -1, "data-sae": sae, "aria-label": label}, drawn, ring);
  group.classList.toggle("shown", sae === shown);
  out.append(group);
  return {sae, x, y, group};
}
function withoutResults(out, ids, state, x, left, y) {
  const taken = {};
  return ids.map(i => {
    const beside = taken[saes.sparsity[i]] = (taken[saes.sparsity[i]] ?? -1) + 1;
    const around = Math.ceil(beside / 2) * (beside % 2 ? 12 : -12);
    const at = saes.sparsity[i] ? x(saes.sparsity[i]) + around : left + 12 * (beside + 1), [a, b] = [at - 4, at + 4];
    const d = state === "failed" ? `M${a} ${y - 4}L${b} ${y + 4}M${a} ${y + 4}L${b} ${y - 4}`
      : `M${a} ${y}A4 4 0 1 0 ${b} ${y}A4 4 0 1 0 ${a} ${y}`;
    return button(out, i, at, y, svg("path", {class: "without-results", d, stroke: style(i)[1]}));
  });
}

const name = sae => `${style(sae)[0]}, ${saes.target[sae]}, seed ${cell(sae, "seed")}`;
function brief(sae) {
  if (saes.state[sae] !== "finished") return [["state", saes.state[sae]]];
  return [...style(sae)[4] ? ["trained_by", "tokens"] : [], "l0", "fvu", "delta_loss"].map(key => [key, cell(sae, key)]).filter(([, value]) => value !== "-");
}

// A click selects the nearest point: points lie close together, and a touch is imprecise.
function listen(out, points, key) {
  const nearest = event => {
    const at = out.getBoundingClientRect(), far = p => Math.hypot(p.x - event.clientX + at.left, p.y - event.clientY + at.top);
    const best = points.reduce((a, b) => a && far(a) <= far(b) ? a : b, null);
    return best && far(best) < 28 ? best : null;
  };
  for (const p of points) {
    p.group.dataset.panel = key;
    p.group.addEventListener("focus", () => hover(p));  // not on the panel, which would then be a stop for Tab
    p.group.addEventListener("blur", () => hover(null));
  }
  points[0]?.group.setAttribute("tabindex", 0);
  out.addEventListener("pointermove", event => event.pointerType === "mouse" && hover(nearest(event)));
  out.addEventListener("pointerleave", () => hover(null));
  out.addEventListener("click", event => {  // a screen reader's click has no coordinates
    const p = event.detail ? nearest(event) : points.find(p => p.group.contains(event.target));
    if (p) open(p.sae, p.group);
  });
  out.addEventListener("keydown", event => walk(event, points));
}
function walk(event, points) {
  const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -points.length, End: points.length}[event.key];
  const at = points.findIndex(p => p.group === event.target);
  if (at < 0 || !step && event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  if (!step) return open(points[at].sae, points[at].group);
  const next = points[Math.max(0, Math.min(points.length - 1, at + step))].group;
  points.forEach(p => p.group.setAttribute("tabindex", p.group === next ? 0 : -1));
  next.focus();
}
function hover(p) {
  document.querySelectorAll(".hot").forEach(found => found.classList.remove("hot"));
  under = p;
  card.hidden = !p;
  if (!p) return;
  panels.querySelectorAll(`[data-sae="${p.sae}"]`).forEach(found => found.classList.add("hot"));
  card.replaceChildren(el("b", {textContent: name(p.sae)}), list(brief(p.sae)));
  const at = p.group.getBoundingClientRect(), gap = 10, width = card.offsetWidth, height = card.offsetHeight;
  const left = [at.right + gap, at.left - gap - width].find(x => x >= 8 && x + width <= innerWidth - 8);
  const top = left === undefined ? at.top - gap - height : Math.min(at.top - height / 2, innerHeight - height - 8);
  card.style.left = (left ?? 8) + "px";
  card.style.top = Math.max(8, top) + "px";
}
