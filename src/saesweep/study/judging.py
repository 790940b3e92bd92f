"""The third stage of a study: a language model explains the sampled latents, and is asked whether the explanations hold."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.examples import Group, Places, choose, common_tokens
from saesweep.study.hits import Collected, Half
from saesweep.study.judge.explanation import WINDOWS
from saesweep.study.judge.judge import KEY, judge, require_model
from saesweep.study.judge.plan import Plan, plan, require_affordable
from saesweep.study.judge.settings import require_sending_allowed
from saesweep.study.judge.windows import TEST, LatentExamples, Window
from saesweep.study.pieces import Pieces, around

CACHE = Path(".study/responses.sqlite")  # beside the sweeps: the responses of all studies


def with_judgements(
    scores: pd.DataFrame, saes: Sequence[tuple[Collected, Tokenizer]], settings: Mapping[str, Any], base: Path
) -> pd.DataFrame:
    """scores.csv with the columns of judge/judge.py; itself with explainer=none. base: the folder that paths are relative to.

    Raises UsageError where it would cost too much, and where the model does not answer.
    """
    explainer = settings["explainer"]
    if explainer["name"] == "none":
        return scores
    jobs = {sae.path: sae.folder for sae, _ in saes}
    latents = (one for sae, tokenizer in saes for one in _latents(sae, tokenizer, scores, explainer, settings["features"]))
    found = judge(latents, explainer, jobs=jobs, cache=base.parent / CACHE, seed=settings["seed"])
    return scores.merge(found, on=KEY, how="left")


def planned(saes: int, settings: Mapping[str, Any]) -> Plan:
    """What it costs at most. saes: SAEs and controls. Raises UsageError above explainer.max_requests, where text would leave
    this machine unasked, and for a local model that is unknown or an API key that is not set."""
    made = plan([settings["features"]] * saes, settings["explainer"])
    if not settings["plan"]:
        require_sending_allowed(settings["explainer"])
        require_affordable(made, settings["explainer"])
        require_model(settings["explainer"])
    return made


def _latents(
    sae: Collected, tokenizer: Tokenizer, scores: pd.DataFrame, explainer: Mapping[str, Any], features: int
) -> Iterator[LatentExamples]:
    """The scored latents of an SAE, in their sampling order: for a model the first ones.

    No more than `features`, which are a uniform sample; those behind them were added for the ranges of frequency.
    """
    control = scores["control"].isna() if sae.control is None else scores["control"] == sae.control
    mine = scores.loc[(scores["path"] == sae.path) & control].set_index("latent")
    texts, windows = Pieces(tokenizer), explainer.get("windows", 1)
    fit, test = Places(sae.fit.text), Places(sae.test.text)
    most = min(features, explainer["latents"]) if "latents" in explainer else None
    for latent in [int(latent) for latent in sae.order if latent in mine.index][:most]:
        common = common_tokens(sae.fit, latent)
        shown = choose(fit, sae.fit, latent, common, {str(group): count for group, count in WINDOWS.items()})
        tests = choose(test, sae.test, latent, common, dict[str, int].fromkeys(TEST, windows))
        yield LatentExamples(
            sae.path, sae.control, latent, float(sae.fit.top.values[latent, 0]), _windows(shown, sae.fit, latent, texts),
            _windows(tests, sae.test, latent, texts), str(mine.at[latent, "rule_words"]) or None)


def _windows(groups: Mapping[str, Group], half: Half, latent: int, texts: Pieces) -> dict[Any, list[Window]]:
    return {name: [_window(half, latent, position, texts) for position in group.positions.tolist()]
            for name, group in groups.items()}


def _window(half: Half, latent: int, position: int, texts: Pieces) -> Window:
    ids, values, _ = around(half, latent, position)
    return Window(tuple(texts[int(number)] for number in ids), values)
