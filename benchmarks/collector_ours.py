"""The study's collector on made-up hits, in a process of its own (benchmarks/collector.py starts it)."""
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import common, made_hits
from benchmarks.made_hits import Watch, draw
from saesweep.data.normalisation import Statistics
from saesweep.lm.hooks import HookPoint
from saesweep.study import hits_file
from saesweep.study.accumulator import BYTES, Active, active
from saesweep.study.collector import LISTED, dense_of
from saesweep.study.examples import Places, choose, common_tokens
from saesweep.study.hits import TextHalf
from saesweep.study.parts import Part
from saesweep.study.subjects import HITS, Subject
from saesweep.study.text import pool_of

SETTINGS = {"seed": 0, "features": 300, "dense_tokens": 20_000}  # as in conf/study/rules.yaml
BATCH, DOCUMENT = 2048, 512  # tokens
HEADER = {"settings": '{"dense_tokens": 20000}'}


def subject(folder: Path, number: int, width: int) -> Subject:
    zero = torch.zeros(1)
    statistics = Statistics(zero, 1.0, zero, float("inf"), (0.0,), 0.0)
    return Subject(folder, folder, "random", {}, {}, HookPoint("synthetic", "output"), statistics, width,
                   f"{number + 1:016x}", folder / str(number) / HITS)


def sparse(width: int, l0: int, saes: int, tokens: int) -> dict:
    """`tokens` in each half of each SAE, listed. Lists go to disk as `Collector` sends them there."""
    watch, hits, most = Watch(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        before = _start()
        parts = [Part(subject(Path(folder), number, width), SETTINGS) for number in range(saes)]
        kept = dense_of(_text(tokens, DOCUMENT), SETTINGS["dense_tokens"])
        for first in range(0, tokens, BATCH):
            positions = np.arange(first, min(first + BATCH, tokens))
            for number, part in enumerate(parts):
                for at, half in enumerate(part.halves.values()):
                    found = Active(*draw(2 * (number + saes * first) + at, len(positions), width, l0))
                    hits += len(found.columns)
                    with watch("collect"):
                        half.add(found, positions, (positions // DOCUMENT).astype(np.int32), kept[positions])
            listed = sum(part.listed for part in parts)
            most = max(most, listed)
            if listed > LISTED:
                _save(parts, watch)
        collected = made_hits.peak() - before
        _save(parts, watch)
        for part in parts:
            part.halves.clear()
        for part in parts:
            with watch("write"):
                _write(part)
        return {"stages": watch.stages, "hits": hits, "tokens": 2 * saes * tokens, "state": 2 * saes * width * BYTES,
                "lists": 16 * most, "collected": collected, "written": made_hits.peak() - before}


def _start() -> int:
    """The resident size, from which peaks are counted."""
    made_hits.forget_peak()
    return made_hits.resident()


def _save(parts: list[Part], watch: Watch) -> None:
    for part in parts:
        part.unsaved = 1
        with watch("write"):
            part.save(0, {})


def _write(part: Part) -> None:
    whole = hits_file.merged(part, SETTINGS)
    hits_file.write(whole, HEADER)
    hits_file.remove_state(whole)


def dense(width: int, l0: int, batches: int, rows: int, context: int, latents: list[int]) -> dict:
    """One SAE's dense latents, batch after batch, in one half; then the examples of some latents."""
    watch, text = Watch(), _text(batches * rows, context)
    kept = dense_of(text, SETTINGS["dense_tokens"])
    with tempfile.TemporaryDirectory() as folder:
        before = _start()
        part = Part(one := subject(Path(folder), 0, width), SETTINGS)
        for number in range(batches):
            f, first = torch.from_numpy(draw(number, rows, width, l0).dense(width)), number * rows
            with watch("collect"):
                for start in range(0, rows, BATCH):
                    positions = np.arange(first + start, first + min(start + BATCH, rows))
                    found = active(f[start : start + BATCH], 1.0)
                    part.halves["fit"].add(found, positions, (positions // context).astype(np.int32), kept[positions])
            del f
        _save([part], store := Watch())
        part.halves.clear()
        with store("write"):
            _write(part)
        with watch("examples"):
            half = hits_file.read(one.file, {"fit": text, "test": text})["fit"]
            places = Places(text)
            shown = sum(len(group.positions) for latent in latents
                        for group in choose(places, half, latent, common_tokens(half, latent)).values())
        return {"stages": {"collect": watch.stages["collect"], "write": store.stages["write"],
                           "examples": watch.stages["examples"]},
                "peak": made_hits.peak() - before, "disk": one.file.stat().st_size, "shown": shown}


def _text(tokens: int, context: int) -> TextHalf:
    positions, block = np.arange(tokens), (np.arange(tokens) // context).astype(np.int32)
    ids, ordinary = np.random.default_rng(0).integers(0, 1000, tokens).astype(np.int32), np.ones(tokens, bool)
    return TextHalf([], ids, block, (positions % context).astype(np.int32), block, ordinary, pool_of(block, ordinary, 0))


if __name__ == "__main__":
    if sys.argv[1] == "dense":
        common.prepare()
        dense(64, 4, 1, 256, 32, [0])  # compiles
    else:
        sparse(64, 4, 1, 100)
    made_hits.serve({"sparse": sparse, "dense": dense}[sys.argv[1]])
