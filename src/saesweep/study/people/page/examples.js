// One latent: its excerpts, with a mark on each token on which it is active. All text is in text nodes.
function show({top, spread}) {
  get("top").replaceChildren(...top.map(excerpt));
  get("spread").replaceChildren(...spread.map(excerpt));
}
function excerpt({text, tenths, at}) {
  const line = document.createElement("li");
  text.forEach((piece, n) => line.append(token(piece, tenths[n], n === at)));
  return line;
}
function token(piece, tenths, chosen) {
  if (!tenths && !chosen) return document.createTextNode(piece);
  const made = document.createElement("mark");
  made.textContent = piece;
  made.style.setProperty("--n", tenths);
  made.title = `up to ${10 * tenths}% of the largest`;
  made.classList.toggle("at", chosen);
  return made;
}
