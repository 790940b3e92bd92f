"""The page of one latent."""
from __future__ import annotations

from collections.abc import Iterator
from html import escape

from saesweep.storage import files
from saesweep.study.pages import facts
from saesweep.study.pages.facts import Means
from saesweep.study.pages.groups import examples
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.pages.template import fill, link
from saesweep.study.pages.windows import Windows, activity
from saesweep.study.pieces import Pieces

STYLES = ("common.css", "latent.css")


def latent_pages(sae: OfSAE, title: str, means: Means, windows: Windows, command: str, up: str) -> Iterator[tuple[int, str]]:
    """Each scored latent with its page. up: from the folder of the SAE's pages to that of the study."""
    latents, names = sae.latents, sae.names
    pages, pieces = {latent: f"{latent}.html" for latent in latents}, Pieces(sae.tokenizer)
    order = sorted(latents)
    same = {"command": escape(command), "trained": escape(files.command(sae.collected.folder))}
    for row, found in enumerate(sae.scores.to_dict("records")):
        latent = latents[row]
        active = activity(sae.collected.test, latent)
        logits = "" if sae.logits is None else _section("Logits", facts.logits(pieces, sae.logits, row))
        nearest = "" if sae.nearest is None else _section(
            "Nearest decoder rows", facts.nearest(sae.nearest.latents[row], sae.nearest.cosines[row], pages))
        yield latent, fill(
            "latent.html", STYLES, "latent.js", f"Latent {latent} of {title}", heading=f"Latent {latent} of {escape(title)}",
            nav=_nav(up, title, order, order.index(latent)), about=_about(sae), rule=facts.rule(found),
            explanation=facts.explanation(sae.explanations.get(latent)), scores=facts.scores(found, names, means),
            density=facts.density(sae.collected, latent, found), logits=logits, nearest=nearest,
            examples=examples(sae.collected, latent, active, windows), **same)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _about(sae: OfSAE) -> str:
    return escape(f"{sae.place}. Examples and scores are of held-out documents from which nothing was chosen (the test half); "
                  "activations are in training units. The stronger the colour of a token and the thicker its line, the closer "
                  "it is to the maximum; the token with a frame is the one whose value stands before the text. ⏎ is the end of "
                  "a line, → a tab.")


def _nav(up: str, title: str, order: list[int], at: int) -> str:
    links = [link(f"{up}/study.html", "Study"), link(f"{up}/features/index.html", "All latents"), link("index.html", title)]
    around = ((at - 1, "Previous latent"), (at + 1, "Next latent"))
    links += [link(f"{order[n]}.html", words) for n, words in around if 0 <= n < len(order)]
    return "".join(links)
