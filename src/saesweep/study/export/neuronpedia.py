"""The layout that a Neuronpedia server imports (its README, "local database"): files of JSON lines per SAE.

    <model>/<layer>-<set>__<SAE>/release.jsonl  model.jsonl  sourceset.jsonl  source.jsonl
    <model>/<layer>-<set>__<SAE>/{features,activations,explanations}/batch-<n>.jsonl.gz

A set is the SAEs of a sweep at one site. Values are in raw units, as the saved SAE gives them. Of the examples the strongest
20 are `binMin` -1, and five of each fifth of [0, maximum] have its bounds and its share of the activations.
"""
from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saesweep.runtime import atomic
from saesweep.storage.files import job_name
from saesweep.study.examples import PARTS
from saesweep.study.export import records
from saesweep.study.export.records import record
from saesweep.study.export.windows import Latent, latents, rounded, short
from saesweep.study.pages.histogram import value as bin_start
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.pieces import Pieces

BATCH = 128  # latents of a file
KINDS = ("features", "activations", "explanations")
RULES = "saesweep_rules"  # name of the explainer that writes rules
Row = dict[str, Any]


class About(NamedTuple):
    model: str | None  # its name at Neuronpedia; None: that of conf/model
    creator: str
    sweep: str
    command: str


def write(saes: Sequence[OfSAE], out: Path, about: About) -> list[Path]:
    """The folders of the SAEs."""
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    return [_write(sae, names, out, about, now) for sae, names in zip(saes, Names.of(saes, about), strict=True)]


def _write(sae: OfSAE, names: Names, out: Path, about: About, now: str) -> Path:
    folder, common = out / names.model / names.source, {"creatorId": about.creator, "createdAt": now}
    for file, row in _tables(sae, names, about, common).items():
        atomic.write(folder / f"{file}.jsonl", _lines([row]))
    count = 0
    for rows in batches(sae, names, common):
        for kind, found in rows.items():
            atomic.write(folder / kind / f"batch-{count}.jsonl.gz", gzip.compress(_lines(found).encode(), mtime=0))
        count += 1
    for kind in KINDS:
        drop_batches(folder / kind, ".jsonl.gz", count)
    return folder


def drop_batches(folder: Path, ending: str, count: int) -> None:
    """Remove the batches of an earlier export of more latents: the files batch-<n> from `count` on."""
    for file in folder.glob(f"batch-*{ending}"):
        number = file.name.removeprefix("batch-").removesuffix(ending)
        if number.isdecimal() and int(number) >= count:
            file.unlink()


class Names(NamedTuple):
    model: str
    set: str
    source: str

    @staticmethod
    def of(saes: Sequence[OfSAE], about: About) -> list[Names]:
        """Of each SAE; those that would have the names of another, as of several sweeps, end with a digest of their paths."""
        found = [Names._of(sae, about) for sae in saes]
        return [names._replace(source=f"{names.source}-{hashlib.sha256(sae.collected.path.encode()).hexdigest()[:8]}")
                if found.count(names) > 1 else names for names, sae in zip(found, saes, strict=True)]

    @staticmethod
    def _of(sae: OfSAE, about: About) -> Names:
        config = sae.collected.config
        model = about.model or config["model"]["name"]
        found = _plain(f"{config['site']['name']}-{about.sweep}")
        coefficient = config["arch"].get("coefficient")
        name = _plain(f"{sae.collected.curve}-{job_name(config['sparsity'], coefficient, config['seed'])}")
        return Names(_plain(model), found, f"{config['layer']}-{found}__{name}")


def _plain(text: str) -> str:
    """For an address: letters, digits, dots and single hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _tables(sae: OfSAE, names: Names, about: About, common: Mapping[str, str]) -> dict[str, Row]:
    config, text = sae.collected.config, sae.collected.test.text
    description = f"SAEs of the sweep {about.sweep}, trained with saesweep"
    return {
        "release": record(records.RELEASE, name=names.set, description=description, descriptionShort=description,
                          creatorName=about.creator, creatorNameShort=about.creator, **common),
        "model": record(records.MODEL, id=names.model, displayName=names.model, displayNameShort=names.model,
                        updatedAt=common["createdAt"], owner="", **common),
        "sourceset": record(records.SOURCE_SET, modelId=names.model, name=names.set, creatorName=about.creator,
                            releaseName=names.set, description=description, **common),
        "source": record(records.SOURCE, id=names.source, modelId=names.model, setName=names.set,
                         num_prompts=int(text.block.max(initial=-1)) + 1, num_tokens_in_prompt=config.get("context"),
                         dataset=(config.get("text") or {}).get("name"), notes=about.command, **common),
    }


def batches(sae: OfSAE, names: Names, common: Mapping[str, str]) -> Iterator[dict[str, list[Row]]]:
    """The rows of each BATCH latents by table."""
    pieces = Pieces(sae.tokenizer)
    found = latents(sae, pieces)
    while batch := list(islice(found, BATCH)):
        rows: dict[str, list[Row]] = {kind: [] for kind in KINDS}
        for one in batch:
            about = {"modelId": names.model, "layer": names.source, "index": str(int(one.row["latent"]))}
            rows["features"].append(_feature(sae, one, pieces, {**about, **common}))
            rows["activations"] += _activations(one, sae.scale, {**about, **common})
            rows["explanations"] += _explanations(sae, one.row, about, common)
        yield rows


def _feature(sae: OfSAE, one: Latent, pieces: Pieces, about: Row) -> Row:
    number, words = one.number, {}
    if sae.logits is not None:
        for side, ids, values in (("pos", sae.logits.highest, sae.logits.highest_values),
                                  ("neg", sae.logits.lowest, sae.logits.lowest_values)):
            words[f"{side}_str"] = [pieces.verbatim(int(word)) for word in ids[number]]
            words[f"{side}_values"] = rounded(values[number])
        if (bars := sae.logits.histograms) is not None:
            words |= {"logits_hist_data_bar_heights": rounded(bars.counts[number]),
                      "logits_hist_data_bar_values": rounded(bars.centres(number))}
    if sae.nearest is not None:
        words |= {"topkCosSimIndices": sae.nearest.latents[number].tolist(),
                  "topkCosSimValues": rounded(sae.nearest.cosines[number])}
    config, counts = sae.collected.config, sae.collected.test.histogram[int(one.row["latent"])]
    bins = np.flatnonzero(counts)
    return record(
        records.FEATURE, maxActApprox=short(one.active.maximum * sae.scale), frac_nonzero=float(one.row["frequency"]),
        hookName=config["site"].get("hook_name", "").format(layer=config["layer"]) or None,
        freq_hist_data_bar_values=rounded(bin_start(int(n)) * sae.scale for n in bins),
        freq_hist_data_bar_heights=rounded(counts[bins]), **words, **about)


def _activations(one: Latent, scale: float, about: Row) -> Iterator[Row]:
    maximum, held = one.active.maximum * scale, one.active.intervals
    shares, step = (held / max(held.sum(), 1)).tolist(), maximum / PARTS["interval"]
    for number, window in enumerate(one.windows):
        values, bounds = rounded(np.array(window.values) * scale), (-1.0, short(maximum), -1.0)
        if window.group == "interval":
            bounds = short(window.part * step), short((window.part + 1) * step), shares[window.part]
        yield record(
            records.ACTIVATION, id=_id(about, "activation", number), tokens=window.tokens, values=values, maxValue=max(values),
            maxValueTokenIndex=int(np.argmax(values)), minValue=min(values), binMin=bounds[0], binMax=bounds[1],
            binContains=bounds[2], qualifyingTokenIndex=window.at, **about)


def _explanations(sae: OfSAE, row: Mapping[Any, Any], about: Row, common: Mapping[str, str]) -> Iterator[Row]:
    """That of a model, and the rule."""
    said = sae.explanations.get(int(row["latent"]))
    texts = [(said.text, "saesweep", said.model)] if said else []
    if isinstance(row.get("rule_words"), str) and row["rule_words"]:
        texts.append((row["rule_words"], RULES, RULES))
    for number, (description, kind, model) in enumerate(texts):
        yield record(records.EXPLANATION, id=_id(about, "explanation", number), description=description, typeName=kind,
                     explanationModelName=model, authorId=common["creatorId"], createdAt=common["createdAt"], **about)


def _id(about: Row, kind: str, number: int) -> str:
    """25 characters that begin with c, the same whenever a row is written again."""
    words = "/".join([about["modelId"], about["layer"], about["index"], kind, str(number)])
    return "c" + hashlib.sha256(words.encode()).hexdigest()[:24]


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
