// Find and sort the rows of a table of latents.
const get = id => document.getElementById(id), table = get("latents"), body = table.tBodies[0], rows = [...body.rows];
const heads = [...table.tHead.rows[0].cells], column = heads.findIndex(head => head.dataset.key === "latent");
const numbers = rows.map(row => row.cells[column].textContent);
const texts = rows.map(row => [...row.cells].filter(cell => cell.className === "t").map(cell => cell.textContent)
  .join(" ").toLowerCase());
const shown = () => [...body.rows].filter(row => !row.hidden);

function find() {
  const number = get("number").value.trim(), words = get("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  rows.forEach((row, i) => {
    row.hidden = number && +numbers[i] !== +number || !words.every(word => texts[i].includes(word));
  });
  const count = rows.filter(row => !row.hidden).length, none = number && !rows.some((row, i) => +numbers[i] === +number);
  get("status").textContent = none ? `Latent ${+number} is not among the ${rows.length} scored ones.`
    : `${count} of ${rows.length} latents`;
}
function value(row, at) {
  const text = row.cells[at].textContent;
  return heads[at].classList.contains("t") ? text : text === "-" ? NaN : parseFloat(text);
}
// Missing numbers come last in both directions.
function compare(a, b, sign) {
  if (typeof a === "string") return sign * a.localeCompare(b);
  return isNaN(a) ? isNaN(b) ? 0 : 1 : isNaN(b) ? -1 : sign * (a - b);
}
function sort(at) {
  const head = heads[at], text = head.classList.contains("t");
  const down = head.ariaSort ? head.ariaSort === "ascending" : !text && at !== column;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.ariaSort = down ? "descending" : "ascending";
  const keyed = rows.map(row => [value(row, at), row]).sort(([a], [b]) => compare(a, b, down ? -1 : 1));
  body.append(...keyed.map(([, row]) => row));
}

heads.forEach((head, at) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sort(at));
});
get("find").addEventListener("input", find);
get("find").addEventListener("submit", event => {
  event.preventDefault();
  const first = shown()[0];
  if (first) location.href = first.cells[column].querySelector("a").href;
});
get("find").hidden = get("help").hidden = false;
find();
