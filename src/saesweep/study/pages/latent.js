// The share of the maximum of the token under the pointer.
document.addEventListener("pointerover", ({target}) => {
  const tenths = target.tagName === "MARK" && target.className.slice(1);
  if (tenths) target.title = `up to ${10 * tenths}% of the largest activation`;
});
