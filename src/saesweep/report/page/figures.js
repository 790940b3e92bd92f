// Axes, marks and small charts as SVG, in CSS pixels.
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const CORNERS = {"s": "-1-1H1V1H-1Z", "^": "0-1.2L1.2 1H-1.2Z", "D": "0-1.35L1.35 0L0 1.35L-1.35 0Z", "v": "0 1.2L1.2-1H-1.2Z",
  "<": "-1.2 0L1 1.2V-1.2Z", ">": "1.2 0L-1 1.2V-1.2Z", "o": "-1.1 0A1.1 1.1 0 1 0 1.1 0A1.1 1.1 0 1 0-1.1 0Z"};
function mark(marker, colour, x, y, size, hollow, kind = "mark") {
  const inked = hollow ? {fill: "#fff", "fill-opacity": 0, stroke: colour, "stroke-width": 1.8} : {fill: colour};
  const attributes = {class: kind, d: "M" + CORNERS[marker], ...inked, "vector-effect": "non-scaling-stroke"};
  return svg("path", {...attributes, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size})`});
}

// [low, high] with a margin around the values
function span(values, log) {
  let low = Math.min(...values), high = Math.max(...values);
  if (log) {
    const margin = Math.max((high / low) ** .08, 1.02);
    return [low / margin, high * margin];
  }
  const margin = .08 * (high - low) || .1 * Math.abs(high) || .1;
  return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
}
function scale([low, high], from, to, log) {
  const f = log ? Math.log : v => v;
  return v => from + (to - from) * (f(v) - f(low)) / (f(high) - f(low));
}

function evenTicks([low, high], count = 4) {
  const rough = (high - low) / count, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * unit).reduce((a, b) => Math.abs(b - rough) < Math.abs(a - rough) ? b : a);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push([k * step, plain(k * step, decimals)]);
  return ticks;
}
function plain(value, decimals) {
  const [size, unit] = value >= 1e6 ? [1e6, "M"] : value >= 1e3 ? [1e3, "k"] : [1, ""];
  return unit ? +(value / size).toPrecision(3) + unit : value.toFixed(decimals);
}
function logTicks([low, high], most = 6) {
  const at = digits => {
    const powers = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) powers.push(p);
    return powers.flatMap(p => digits.map(d => d * 10 ** p)).filter(v => v >= low && v <= high);
  };
  const finest = [[1, 2, 5], [1, 3], [1]].map(at).find(ticks => ticks.length <= most) ?? at([1]);
  if (finest.length < 3) return evenTicks([low, high]).filter(([v]) => v > 0);
  const every = Math.ceil(finest.length / most);
  const decimals = v => v < 1 ? -Math.floor(Math.log10(v) + 1e-9) : 0;
  return finest.filter((_, i) => i % every === 0).map(v => [v, plain(v, decimals(v))]);
}
function powersOfTwo([low, high], most) {
  const powers = [];
  for (let p = Math.ceil(Math.log2(low)); p <= Math.log2(high); p++) powers.push(p);
  const every = Math.ceil(powers.length / most);
  return powers.filter((_, i) => i % every === 0).map(p => [2 ** p, String(2 ** p)]);
}

// box: left, right, top, floor. xs and ys: [pixel, text]; a name for each axis
function frame({left, right, top, floor}, xs, ys, nameX, nameY) {
  const across = ys.map(([y]) => `M${left} ${y.toFixed(1)}H${right}`);
  const grid = xs.map(([x]) => `M${x.toFixed(1)} ${top}V${floor}`).concat(across).join("");
  const text = (x, y, anchor, words) => svg("text", {x, y, "text-anchor": anchor}, words);
  return svg("g", {"aria-hidden": "true"},
    svg("path", {class: "grid", d: grid}),
    svg("path", {class: "axis", d: `M${left} ${top}V${floor}H${right}`}),
    ...xs.map(([x, words]) => text(x.toFixed(1), floor + 16, "middle", words)),
    ...ys.map(([y, words]) => text(left - 6, (y + 4).toFixed(1), "end", words)),
    text((left + right) / 2, floor + 34, "middle", nameX), text(2, top - 9, "start", nameY));
}

const path = points => "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");

// One metric over the training; the target L0 is dashed.
function training(curve, key, width, sparsity) {
  const points = curve.tokens.map((t, i) => [t, curve[key][i]]).filter(([t, v]) => t !== null && v > 0);
  if (points.length < 2) return null;
  const target = key === "l0" && sparsity > 0 ? [sparsity] : [], last = points.at(-1);
  const box = {left: 46, right: width - 20, top: 24, floor: 130}, axis = [0, last[0]];
  const ys = span(points.map(([, v]) => v).concat(target), true);
  const x = scale(axis, box.left, box.right), y = scale(ys, box.floor, box.top, true);
  const xs = evenTicks(axis).map(([t, words]) => [x(t), words]), ticks = logTicks(ys, 5).map(([v, words]) => [y(v), words]);
  const label = `${key} during training: ${points[0][1]} at ${points[0][0]} tokens, ${last[1]} at ${last[0]} tokens`;
  return svg("svg", {width, height: 170, role: "img", "aria-label": label}, frame(box, xs, ticks, "tokens", key),
    ...target.map(v => svg("path", {class: "line target", d: path([[box.left, y(v)], [box.right, y(v)]])})),
    svg("path", {class: "line trained", d: path(points.map(([t, v]) => [x(t), y(v)]))}));
}

// A histogram of firing rates; latents that never fired, or too seldom for a rate, have bars of their own at the left.
function frequencies({counts, never, rare, few, latents}, edges, width) {
  const box = {left: 46, right: width - 20, top: 24, floor: 130}, ys = [0, Math.max(never, rare, ...counts, 1) * 1.05];
  const x = scale([edges[0], edges.at(-1)], box.left + 80, box.right), y = scale(ys, box.floor, box.top);
  const bar = (from, to, count, kind) => {
    const d = `M${from.toFixed(1)} ${box.floor}V${y(count).toFixed(1)}H${to.toFixed(1)}V${box.floor}Z`;
    return svg("path", {class: kind, d});
  };
  const decades = edges.filter(Number.isInteger).filter((_, i) => i % (width < 360 ? 2 : 1) === 0);
  const xs = [[box.left + 16, "never"], [box.left + 50, `<${few}×`], ...decades.map(e => [x(e), e ? "1e" + e : "1"])];
  const label = `Firing rates of ${latents} latents; ${never} never fired`;
  return svg("svg", {width, height: 170, role: "img", "aria-label": label},
    frame(box, xs, evenTicks(ys, 3).map(([v, words]) => [y(v), words]), "share of held-out tokens", "latents"),
    bar(box.left + 7, box.left + 25, never, "never"), bar(box.left + 41, box.left + 59, rare, "never"),
    ...counts.map((count, i) => bar(x(edges[i]) + .5, x(edges[i + 1]) - .5, count, "bar-of")));
}
