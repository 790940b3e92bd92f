"""Activations of one's own: a folder of safetensors, or an iterator, without any language model."""
import json
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small import job, train_group, trained

from saesweep.config.check import check
from saesweep.data.activation_files import ActivationFiles
from saesweep.data.activation_split import TRAINING, sides
from saesweep.data.held_out import CALIBRATION, EVALUATION
from saesweep.data.own_activations import OwnFiles, OwnIterator, OwnSource, RowsEnded, require_enough_rows
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.sweep.inputs import OwnActivations
from saesweep.sweep.probe import estimate

HEADER = {"d_in": 16, "hook_name": "blocks.2.hook_resid_post", "dtype": "float32", "units": "as the model computes them"}
POINT = HookPoint("resid.2", "output")
ROWS = (3000, 2500)  # of each file


def write(folder: Path, documents: bool = False, **header: object) -> Path:
    """Files of rows whose first entry is the number of the row; documents of 7 rows, dealt over both files."""
    folder.mkdir(exist_ok=True)
    (folder / "header.json").write_text(json.dumps(HEADER | header))
    random, first = torch.Generator().manual_seed(0), 0
    mixing = torch.randn(24, 16, generator=random)
    for number, rows in enumerate(ROWS):
        x = torch.rand(rows, 24, generator=random).pow(6) @ mixing
        x[:, 0] = torch.arange(first, first + rows)
        of = {"document": torch.arange(rows) % (sum(ROWS) // 7)} if documents else {}
        save_file({"activations": x, **of}, folder / f"{number}.safetensors")
        first += rows
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("own") / "acts")


def own_files(folder: Path, seed: int = 0, share: float = 0.3, run: int = 16) -> OwnFiles:
    return OwnFiles(ActivationFiles(str(folder), run, HEADER["hook_name"]), share, seed)


def own_iterator(folder: Path, **arguments: object) -> OwnIterator:
    given = {"folder": str(folder)} | arguments
    return OwnIterator("test_own_activations.parts", given, share=0.3, run=16, stream_seed=0)


def rows_of(x: torch.Tensor) -> list[int]:
    return x[:, 0].int().tolist()


def everything(own: OwnFiles | OwnIterator, number: int = 0) -> list[int]:
    return [row for piece in own.training(number, 0) for row in rows_of(piece)]


def own_job(folder: Path | None, *more: str) -> dict:
    given = () if folder is None else (f"model.source.activations.folder={folder}",)
    return job(None, "model=activations", "layer=2", "tokens=1600", "evaluation.tokens=256",
               "evaluation.calibration_tokens=128", "model.source.activations.held_out=0.3", "model.source.activations.run=16",
               *given, *more)


def test_every_row_is_on_one_side_and_a_document_is_on_one_side_whole(tmp_path):
    own = own_files(write(tmp_path / "acts", documents=True))
    held_out = [own.held_out(purpose, own_count(own, purpose))[0] for purpose in (EVALUATION, CALIBRATION)]
    parts = [everything(own), *map(rows_of, held_out)]
    assert sorted(chain(*parts)) == list(range(sum(ROWS)))
    of_row = torch.cat([torch.arange(rows) % (sum(ROWS) // 7) for rows in ROWS])
    documents = [set(of_row[part].tolist()) for part in parts]
    assert not documents[0] & documents[1] and not documents[0] & documents[2] and not documents[1] & documents[2]
    assert [len(one) for one in documents[1:]] == [118, 118]  # 0.3 of 785, half each


def own_count(own: OwnFiles, purpose: int) -> int:
    return int(own.files.runs.rows[own._side == purpose].sum())


def test_without_documents_a_run_of_a_file_is_one(folder):
    runs = own_files(folder).files.runs
    assert runs.rows.max() == 16 and runs.rows.sum() == sum(ROWS) and len(set(runs.document)) == len(runs.document)
    assert set(runs.rows[runs.rows < 16]) == {3000 % 16, 2500 % 16}
    x, documents = own_files(folder).held_out(EVALUATION, 256)
    assert len(x) == 256 and documents.max() + 1 == 17 and len(set(rows_of(x))) == 256


def test_the_stream_seed_determines_split_and_order_and_each_pass_has_its_own(folder):
    own = own_files(folder)
    assert everything(own) == everything(own_files(folder)) != everything(own, 1)
    assert sorted(everything(own)) == sorted(everything(own, 1))
    assert set(everything(own)) != set(everything(own_files(folder, seed=1)))


def test_the_shares_of_the_sides_are_those_asked_for():
    found = sides(np.arange(100_000), 0.2, 3)
    assert [round(float((found == side).mean()), 2) for side in (EVALUATION, CALIBRATION, TRAINING)] == [0.1, 0.1, 0.8]


@pytest.mark.parametrize("kind", ["folder", "iterator"])
def test_a_window_continues_from_a_saved_state_and_repeats_where_that_is_allowed(folder, kind):
    own = own_files(folder) if kind == "folder" else own_iterator(folder)
    source = OwnSource(own, POINT, window=300, repeat=True, where="acts")
    windows, states = [], []
    for _ in range(20):
        states.append(source.state_dict())
        windows.append(rows_of(source.window(1000)[POINT]))
    assert list(chain(*windows))[: len(everything(own))] == everything(own)
    for number in (7, 0, 15):
        source.load_state_dict(states[number])
        assert rows_of(source.window(1000)[POINT]) == windows[number]
    once = OwnSource(own, POINT, window=10_000, repeat=False, where="acts")
    assert len(once.window(10_000)[POINT]) == len(everything(own))
    with pytest.raises(RowsEnded, match="acts was read to its end"):
        once.window(1)


@pytest.fixture(autouse=True)
def of_the_tests(monkeypatch):
    monkeypatch.setenv("SAESWEEP_PACKAGES", "test_own_activations")
    monkeypatch.setitem(sys.modules, "test_own_activations", sys.modules[__name__])


def parts(folder: str, documents: bool = False, wrong: str = ""):
    """The rows of the folder in parts of 700."""
    files = ActivationFiles(folder, 100, HEADER["hook_name"])
    for number in range(0, len(files.runs.rows), 7):
        x = files.read(files.runs.at(slice(number, number + 7)))
        wrongs = {"shape": x[0], "documents": (x, torch.zeros(3)), "type": x.tolist(), "dtype": x.int()}
        yield wrongs.get(wrong, (x, torch.arange(len(x)) // 5) if documents else x)


def test_an_iterator_has_the_same_sides_in_its_own_order(folder):
    plain = own_iterator(folder)
    assert everything(plain) == sorted(everything(plain)) and plain.count is None
    x, documents = plain.held_out(CALIBRATION, 100)
    assert rows_of(x) == sorted(rows_of(x)) and not set(rows_of(x)) & set(everything(plain)) and len(documents.unique()) == 7
    assert set(everything(own_iterator(folder, documents=True))) != set(everything(plain))


@pytest.mark.parametrize("wrong, words", [
    ("shape", "its part 0 is torch.float32 [16]"), ("type", "its part 0 is list"), ("dtype", "its part 0 is torch.int32"),
    ("documents", "has documents of float32 [3]"),
])
def test_an_iterator_that_yields_something_else_is_refused(folder, wrong, words):
    with pytest.raises(UsageError) as error:
        everything(own_iterator(folder, wrong=wrong))
    assert words in str(error.value)


def stopped(module):
    if module.tokens == 1280:
        raise RuntimeError("stopped")


@pytest.mark.slow
def test_an_sae_of_a_folder_is_trained_measured_and_loaded_and_resumes_bitwise(folder, tmp_path):
    cfgs = [own_job(folder, f"arch={arch}", "width=48", "sparsity=4", "save_tokens=320") for arch in ("jumprelu", "topk")]
    planned = estimate(cfgs, Resources(), tmp_path)
    assert planned["d_in"] == [16, 16]
    whole = [tmp_path / "a" / arch for arch in ("jumprelu", "topk")]
    numbers = train_group(cfgs, whole)
    assert all(one["delta_loss"] is None and 0 < one["fvu"] < 1 and one["tokens"] == 1600 for one in numbers)
    about = json.loads((whole[0] / "sae/cfg.json").read_text())["metadata"]
    assert about["hook_name"] == HEADER["hook_name"] and about["dataset_path"] is None
    assert json.loads((whole[0] / "determined_by.json").read_text())["model"]["content"]["header"] == HEADER
    assert len((whole[0] / "documents.csv").read_text().splitlines()) == 1 + 17
    with pytest.raises(RuntimeError, match="stopped"):
        trained(cfgs, tmp_path / "b", progress=stopped)
    resumed = train_group(cfgs, [tmp_path / "b" / str(i) for i in range(2)])
    assert resumed == numbers


@pytest.mark.parametrize("words, said", [
    ((), "give one of the two"),
    (("model.source.activations.iterator=os.walk",), "iterator=os.walk: must be the dotted path of something in saesweep"),
    (("model.source.activations.iterator=test_own_activations.ROWS",), "cannot be called"),
    (("model.source.activations.folder=x", "cache=disk"), "cache=disk: keeps what a language model computes"),
    (("model.source.activations.folder=x", "study=rules"), "study=rules: cannot read activations without a text"),
    (("model.source.activations.folder=x", "model.source.activations.held_out=1"), "held_out=1: must be above 0 and below 1"),
])
def test_settings_that_cannot_work_are_refused_before_anything_is_read(words, said):
    with pytest.raises(UsageError) as error:
        check(own_job(None, *words))
    assert said in str(error.value)


def without_header(folder: Path) -> None:
    (folder / "header.json").unlink()


def other_documents(folder: Path) -> None:
    save_file({"activations": torch.zeros(5, 16), "document": torch.zeros(5, dtype=torch.long)}, folder / "1.safetensors")


def wrong_documents(folder: Path) -> None:
    for name in ("0", "1"):
        save_file({"activations": torch.zeros(5, 16), "document": torch.zeros(5)}, folder / f"{name}.safetensors")


def other_names(folder: Path) -> None:
    save_file({"x": torch.zeros(5, 16)}, folder / "0.safetensors")


def damaged(folder: Path) -> None:
    (folder / "1.safetensors").write_bytes(b"damaged")


@pytest.mark.parametrize("change, said", [
    (without_header, "has no header.json; write one with d_in, hook_name, dtype, units"),
    (lambda folder: (folder / "header.json").write_text('{"d_in": 16}'), "header.json: lacks hook_name, dtype, units"),
    (lambda folder: write(folder, dtype="float64"), "header.json.dtype=float64: must be float32 or float16 or bfloat16"),
    (lambda folder: write(folder, d_in=8), "holds torch.float32 [3000, 16], and header.json says torch.float32 [rows, 8]"),
    (lambda folder: write(folder, hook_name="x"), "holds hook_name=x, and the site is blocks.2.hook_resid_post; write"),
    (other_names, "0.safetensors has no tensor activations, only x"),
    (other_documents, "some of its files have a tensor document; give it to all or to none"),
    (wrong_documents, "document is torch.float32 [5]; write an integer for each of the 5 rows"),
    (damaged, "cannot read"),
])
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path, change, said):
    change(write(tmp_path / "acts"))
    with pytest.raises(UsageError) as error:
        own_files(tmp_path / "acts")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_too_few_rows_are_refused_with_the_tokens_that_would_do(folder):
    own = own_files(folder)
    for words, said in (
        ("tokens=6400", "has 3,856 training rows, and the training reads 6,400: set tokens=3840 at most"),
        ("activations.window=100", None),
        ("model.source.activations.repeat=true", None),
    ):
        cfg = own_job(folder, words)
        if said is None:
            assert require_enough_rows(own, cfg) is None
        else:
            with pytest.raises(UsageError, match=said):
                require_enough_rows(own, cfg)
    with pytest.raises(UsageError, match=r"evaluation\.tokens=5000: there are \d+ held-out rows for it; write"):
        own.held_out(EVALUATION, 5000)


def test_the_content_of_a_folder_determines_its_digest(tmp_path):
    several = {}, {}, {"units": "others"}, {"documents": True}
    digests = [own_files(write(tmp_path / "acts", **changes)).digest for changes in several]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    x = torch.zeros(ROWS[0], 16)
    save_file({"activations": x}, write(tmp_path / "acts") / "0.safetensors")
    assert own_files(tmp_path / "acts").digest not in digests


def test_one_command_reads_one_hook_point(folder):
    with pytest.raises(UsageError, match=r"of one hook point, and the command asks for mlp\.2\.output, resid\.2\.output; give"):
        OwnActivations(own_job(folder), [POINT, HookPoint("mlp.2", "output")], Resources())
