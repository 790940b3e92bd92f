// Where there is a study: beside the folder of an SAE a link to its latents.
links = (before => (sae, info) => {
  const out = before(sae, info);
  if (info.latents) out.firstChild.after(el("a", {href: info.latents, textContent: "Latents"}));
  return out;
})(links);
