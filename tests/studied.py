"""Small finished sweeps whose activations the tests of the study collect."""
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from small import RESOURCES, job, once_for_all_workers, train_group, write_text

from saesweep.storage import files
from saesweep.study import collect as stage
from saesweep.study import settings, text
from saesweep.study.hits import Collected

FEW = ("tokens=640", "activations.max_norm=1.25", "evaluation.lm_tokens=0")  # a tenth of the tokens are sinks


def swept(
    folder: Path, file: str | None, *more: str, archs: tuple[str, ...] = ("jumprelu", "topk"), sites=("resid",), named=""
) -> Path:
    """A finished sweep in this folder, trained on few tokens; without a file, on a known dictionary.

    named: what the folders of the SAEs have after the architecture.
    """
    jobs = [job(file, *FEW, f"arch={arch}", f"site={site}", *more) for site in sites for arch in archs]
    at = ["{}/{}.{}/{}/{}".format(*(one[key]["name"] for key in ("model", "site")), one["layer"],
                                  one["arch"]["name"] + named, one["sparsity"]) for one in jobs]
    for one, place in zip(jobs, at, strict=True):
        (folder / place / ".hydra").mkdir(parents=True)
        (folder / place / files.RESOLVED).write_text(OmegaConf.to_yaml(OmegaConf.create(one)))
    assert not [end for end in train_group(jobs, [folder / place for place in at]) if isinstance(end, Exception)]
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory, worker_id):
    """Two architectures at two sites; no test changes it."""
    def make(folder):
        swept(folder / "sweep", write_text(folder, documents=100), sites=("resid", "mlp"))

    return once_for_all_workers(tmp_path_factory, worker_id, "trained", make) / "sweep"


@pytest.fixture(scope="session")
def trained_on_dictionary(tmp_path_factory, worker_id):
    """Two architectures on a known dictionary; no test changes it."""
    def make(folder):
        swept(folder / "sweep", None, "tokens=6400", "model.source.synthetic={features: 32, parents: 0.25}")

    return once_for_all_workers(tmp_path_factory, worker_id, "trained_on_dictionary", make) / "sweep"


@pytest.fixture
def sweep(trained, tmp_path, monkeypatch):
    """A copy of it, whose text is read in small portions."""
    monkeypatch.setattr(text, "PORTION", 100)
    return Path(shutil.copytree(trained, tmp_path / "sweep"))


def asked(*words: str) -> dict:
    """The settings of a study of few tokens."""
    known = {word.split("=")[0] for word in words}
    few = ("tokens=3000", "features=10", "dense_tokens=300", "device=cpu", "forward_tokens=128")
    return settings.settings([*(word for word in few if word.split("=")[0] not in known), *words])


def collected(sweep: Path, *words: str) -> list[Collected]:
    assert stage.collect([sweep], asked(*words), RESOURCES) == {}
    return stage.collected(sweep)


def written(sweep: Path) -> dict[str, bytes]:
    """All files that a study has left, by path."""
    return {str(file.relative_to(sweep)): file.read_bytes() for file in sorted(sweep.rglob("*")) if file.is_file()
            and "study" in file.parts}
