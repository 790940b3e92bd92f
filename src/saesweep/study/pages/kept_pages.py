"""The pages of one SAE in a folder: it is written whole, and kept while nothing that its pages say has changed.

    <folder>/made_from.txt      SHA-256 of the activations, scores, explanations and settings, and of the code
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from saesweep.runtime.digests import sha256
from saesweep.storage import files
from saesweep.study.pages.of_sae import OfSAE

MADE_FROM = "made_from.txt"
CODE = (".py", ".html", ".css", ".js")


@cache
def code() -> str:
    """The digest of the program, whose parts all have a say in what is on a page."""
    whole, package = hashlib.sha256(), Path(__file__).parents[2]
    for file in sorted(file for file in package.rglob("*") if file.suffix in CODE):
        whole.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return whole.hexdigest()


def made_from(sae: OfSAE, *more: Any) -> str | None:
    """The digest of what the pages are made from; None where the activations are in no file. more: what else they say."""
    one = sae.collected
    if one.file is None:
        return None
    what = [code(), sha256(one.file), one.config, files.command(one.folder), sae.scores.to_csv(), sae.explanations, more]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def is_kept(folder: Path, sae: OfSAE, digest: str | None) -> bool:
    """Whether the pages that are there are whole and say what new ones would."""
    names = ["index.html", *(f"{latent}.html" for latent in sae.latents)]
    there = folder / MADE_FROM
    return there.is_file() and there.read_text() == digest and all((folder / name).is_file() for name in names)


@contextmanager
def replaced(folder: Path, digest: str | None) -> Iterator[Path]:
    """An empty folder to write to, which replaces the one that is there when the block ends."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        if digest is not None:
            (draft / MADE_FROM).write_text(digest)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_others(folder: Path, kept: Collection[Path]) -> None:
    """Remove all that is in a folder but these files and folders in it."""
    for one in folder.iterdir():
        if any(one in path.parents for path in kept):
            remove_others(one, kept)
        elif one not in kept:
            shutil.rmtree(one) if one.is_dir() else one.unlink()
