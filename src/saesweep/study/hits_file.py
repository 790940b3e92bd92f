"""The file of one subject: written from the parts that its ranks have left, and read back through a memory map."""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saesweep.study import arrays, kernels
from saesweep.study.accumulator import SHAPES
from saesweep.study.arrays import Arrays
from saesweep.study.hits import HALVES, Examples, Half, HalfName, Hits, TextHalf
from saesweep.study.parts import Part, saved

WRITTEN = [name for name in SHAPES if name != "sample.keys"]  # the order of the sample says all that its keys do
KINDS = ("hits", "dense_hits")


def write(whole: Part, header: Mapping[str, str]) -> None:
    """Write the activations of a subject, of which `whole` has read every portion. header: the metadata.

    Memory: the mergeable arrays; the lists are copied from one file into the other.
    """
    lists = [arrays.read(whole.folder / name)[0] for name in whole.lists]
    shapes, starts = _shapes(whole, lists)
    with arrays.create(whole.subject.file, shapes, header) as out:
        for half, state in whole.halves.items():
            for name in WRITTEN:
                out[f"{half}.{name}"][...] = state.arrays[name]
            out[f"{half}.sinks"][...] = np.sort(_joined(lists, f"{half}.sinks"))
            for kind in KINDS:
                _fill(out, lists, f"{half}.{kind}", _latents(whole, half, kind), starts[f"{half}.{kind}"])


def _latents(whole: Part, half: HalfName, kind: str) -> np.ndarray:
    """The latents whose activations are listed, ascending."""
    kept = whole.halves[half].kept
    return np.flatnonzero(kept) if kind == "hits" else np.arange(len(kept))


def _shapes(whole: Part, lists: Sequence[Arrays]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Of all arrays of the file; and where the activations of each listed latent start."""
    shapes, starts = dict[str, Any](), dict[str, np.ndarray]()
    for half in HALVES:
        shapes |= {f"{half}.{name}": (SHAPES[name][0], (whole.subject.d_sae, *SHAPES[name][1])) for name in WRITTEN}
        shapes[f"{half}.sinks"] = np.int64, (sum(len(part[f"{half}.sinks"]) for part in lists),)
        for kind in KINDS:
            name, count = f"{half}.{kind}", np.zeros(whole.subject.d_sae, np.int64)
            for part in lists:
                count += np.bincount(part[f"{name}.latents"], minlength=len(count))
            latents = _latents(whole, half, kind)
            starts[name] = np.concatenate([[0], np.cumsum(count[latents])])
            total = int(starts[name][-1])
            shapes |= {f"{name}.latents": (np.int64, latents.shape), f"{name}.starts": (np.int64, starts[name].shape),
                       f"{name}.positions": (np.int64, (total,)), f"{name}.values": (np.float32, (total,))}
    return shapes, starts


def _fill(out: Arrays, lists: Sequence[Arrays], name: str, latents: np.ndarray, starts: np.ndarray) -> None:
    """Copy the activations of all lists, latent after latent, each in order of position."""
    row_of = np.full(int(latents.max(initial=-1)) + 1, -1)
    row_of[latents] = np.arange(len(latents))
    out[f"{name}.latents"][...], out[f"{name}.starts"][...], filled = latents, starts, starts[:-1].copy()
    positions, values = out[f"{name}.positions"], out[f"{name}.values"]
    for part in lists:
        entries = (np.array(part[f"{name}.{column}"]) for column in ("latents", "positions", "values"))
        kernels.place(*entries, row_of, filled, positions, values)
    kernels.sort_each(starts, positions, values)


def _joined(lists: Sequence[Arrays], name: str) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *(part[name] for part in lists)])


def read(file: Path, text: Mapping[HalfName, TextHalf]) -> dict[HalfName, Half]:
    """Both halves; an array is read from disk when it is used. Raises UsageError where the file is damaged."""
    found, header = arrays.read(file)
    return {half: _half(found, half, text[half], header) for half in HALVES}


def _half(found: Arrays, half: HalfName, text: TextHalf, header: Mapping[str, str]) -> Half:
    fields: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, array in found.items():
        of, field, *sub = name.split(".")
        if of == half:
            fields[field]["".join(sub)] = array
    plain = [fields[name][""] for name in ("sinks", "fires", "documents", "histogram")]
    return Half(text, *plain, top=Examples(**fields["top"]), sample=Examples(**fields["sample"]),
                hits=Hits(**fields["hits"]), dense_hits=Hits(**fields["dense_hits"]),
                dense=text.dense(json.loads(header["settings"])["dense_tokens"]))


def remove_state(whole: Part) -> None:
    """Once the file is written."""
    for file in [*whole.folder.glob("*.safetensors"), *whole.folder.glob(".*.tmp")]:
        file.unlink()
    whole.folder.rmdir()


def merged(part: Part, settings: Mapping[str, Any]) -> Part:
    """The whole: what all ranks have left of the subject of a part."""
    return Part(part.subject, settings, saved(part.folder))
