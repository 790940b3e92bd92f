"""saesweep push: what is written and what is not, and that the hub's own client uploads it and loads it again."""
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from hub_server import Server
from huggingface_hub import constants
from omegaconf import OmegaConf
from small import job
from studied import trained  # noqa: F401 a fixture

import saesweep
from saesweep.errors import UsageError
from saesweep.push import __main__ as command
from saesweep.push import private, run, selected
from saesweep.push.card import Content, card
from saesweep.push.licences import licences
from saesweep.report import figures
from saesweep.storage import files, sweep_table

FIRST = Path("tiny/resid.1/topk/4")
REPOSITORY = "me/tiny-saes"


@pytest.fixture(scope="module")
def sweep(trained, tmp_path_factory):  # noqa: F811
    """Four SAEs in a home folder, with logs, and with one that failed, one unfinished, one of others; no test changes it."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("home") / "jane/outputs/tiny"))
    (folder / FIRST / "wandb").mkdir()
    (folder / FIRST / files.URL).write_text("https://wandb.ai/jane/saesweep/runs/1")
    (folder / FIRST / "train.log").write_text("/home/jane")
    logger = "{csv: {name: csv}, wandb: {entity: jane}}"
    words = ["model=tiny", "text=files", "text.glob=/home/jane/text.jsonl", "sparsity=4", "logger.wandb.entity=jane",
             "hydra.sweep.dir=/home/jane", "+init='/home/jane/x.pt'"]
    (folder / FIRST / files.OVERRIDES).write_text(OmegaConf.to_yaml(words))
    for one in sweep_table.jobs(folder):
        settings = OmegaConf.load(one / files.RESOLVED)
        settings.logger = OmegaConf.create(logger)
        settings.text.glob = "/home/jane/text.jsonl"
        OmegaConf.save(settings, one / files.RESOLVED)
    for name, state in (("failed", files.FAILED), ("unfinished", "train.log"), ("theirs", files.NUMBERS)):
        other = folder / FIRST.parents[1] / name / "4"
        shutil.copytree(folder / FIRST / ".hydra", other / ".hydra")
        shutil.copy(folder / FIRST / files.NUMBERS if name == "theirs" else folder / FIRST / "train.log", other / state)
    settings = OmegaConf.load(other / files.RESOLVED)
    settings.arch.imported = {"source": "x"}
    OmegaConf.save(settings, other / files.RESOLVED)
    return folder


@pytest.fixture(scope="module")
def written(sweep, tmp_path_factory):
    """The folder of a dry run, and what was said of it; no test changes it."""
    out, said = tmp_path_factory.mktemp("dry") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pareto", "frequency"):
            patch.setattr(figures, name, lambda *_: {"png": b"a figure"})
        run.push([sweep], REPOSITORY, run.Options(out, text_license="nobody's"), said.append)
    return out, said[0]

CONF = Path(__file__).parents[1] / "conf/model"


def test_finished_saes_that_were_trained_here_are_written_with_table_chart_page_and_card(sweep, written):
    out, made = written
    assert {*pd.read_csv(out / "pareto.csv")["path"]} == {f"tiny/{site}/{arch}/4" for site in ("mlp.1", "resid.1")
                                                          for arch in ("jumprelu", "topk")}
    assert {"pareto.html", "pareto.png", "README.md"} <= {file.name for file in out.iterdir()}
    assert made.left_out == {"failed": 1, "unfinished": 1, "trained by others": 1} and made.saes == 4
    assert {*made.files} == {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert [*made.files.values()] == sorted(made.files.values(), reverse=True)
    same = ("sae/sae_weights.safetensors", files.STATISTICS, files.NUMBERS, files.FREQUENCY, files.CURVE)
    assert all((out / FIRST / name).read_bytes() == (sweep / FIRST / name).read_bytes() for name in same)


def test_nothing_of_this_machine_and_no_log_goes_along(sweep, written):
    out, made = written
    contents = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    for private_word in (b"jane", str(sweep).encode(), str(sweep.parents[2]).encode(), b"wandb.ai", str(out).encode()):
        assert not [file for file, content in contents.items() if private_word in content], private_word
    assert made.rewritten == ["text.glob"]
    assert files.settings(out / FIRST)["text"]["glob"] == "text.jsonl"
    assert json.loads((out / FIRST / "determined_by.json").read_text())["text"]["glob"] == "text.jsonl"
    assert files.command(out / FIRST) == "python train.py model=tiny text=files text.glob=text.jsonl sparsity=4 +init=x.pt"


def test_the_card_has_a_header_for_the_hub_and_says_what_was_trained(written):
    out, _ = written
    header, _, body = (out / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    fields = yaml.safe_load(header)
    assert fields["library_name"] == "saelens" and {"saesweep", "topk"} < {*fields["tags"]} and "license" not in fields
    assert "4 sparse autoencoders (SAEs), trained with saesweep" in body and "| Trained on | 640 tokens |" in body
    assert "![FVU and delta loss against L0](pareto.png)" in body and "nobody's" in body and "`text.glob`" in body
    df = pd.read_csv(out / "pareto.csv").set_index("path")
    (row,) = (line for line in body.splitlines() if line.endswith(f"`{FIRST}` |"))
    l0, fvu = df.loc[str(FIRST), ["l0", "fvu"]]
    assert row.split(" | ")[:4] == ["| topk", "4", f"{l0:.2f}", f"{fvu:.4f}"] and "| seed |" not in body
    assert "- FVU: sum of" in body and "10,000,000 training tokens" in body


def test_the_loading_code_of_the_card_runs(written, monkeypatch):
    out, _ = written
    code = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[0]
    monkeypatch.chdir(out.parent)
    Path("me").mkdir()
    Path(REPOSITORY).symlink_to(out)
    exec(code, {"x": torch.zeros(2, 48)})


@pytest.mark.parametrize("sites, saved_as, said, example", [
    (["transcoder"], ["topk_transcoder"], "\n\nA transcoder, ", None),
    (["transcoder"] * 2, ["topk_transcoder", "jumprelu_transcoder"], "\n\n2 transcoders, ", "b"),
    (["mlp", "transcoder"], ["topk", "topk_transcoder"], "\n\n2 sparse autoencoders (SAEs), 1 of them transcoders, ", "a"),
])
def test_the_card_says_what_is_a_transcoder_and_what_saelens_reads(sites, saved_as, said, example):
    same = {"arch": "topk", "sparsity": 4, "seed": 0, "d_in": 48, "d_sae": 64, "tokens": 640}
    df = pd.DataFrame({"path": [*"ab"[: len(sites)]], **same})
    jobs = [job("no.jsonl", f"site={site}") for site in sites]
    made = card(Content(REPOSITORY, df, jobs, saved_as, licences(jobs, None, "nobody's"), []))
    assert said in made and "reconstruction; of a transcoder" in made
    assert ("y_hat = sae(x) " in made) == (sites[0] == "transcoder")
    assert f"library_name: {'saelens' if example else 'saesweep'}" in made
    assert re.findall(r'SAE.from_pretrained\("me/tiny-saes", "(.*)/sae"\)', made) == ([example] if example else [])
    assert "SAELens has no topk_transcoder, and refuses these." in made


@pytest.mark.parametrize("arch", ["jumprelu", "topk"])
def test_the_folder_loads_like_that_of_the_sweep(arch, sweep, written):
    place = FIRST.parents[1] / arch / "4"
    ours, loaded = saesweep.load(sweep / place), saesweep.load(written[0] / place)
    x = ours.statistics.mean + ours.statistics.scale * torch.randn(100, ours.d_in)
    assert torch.equal(loaded.encode(x), ours.encode(x)) and 0 < (ours.encode(x) > 0).float().mean() < 1
    assert loaded.metrics == ours.metrics and loaded.config["arch"] == ours.config["arch"] and loaded.point == ours.point
    sae_lens = pytest.importorskip("sae_lens", reason="pip install sae-lens to compare with it")
    theirs = sae_lens.SAE.load_from_disk(str(written[0] / place / "sae"), device="cpu")
    torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-6, atol=1e-6 * float(ours.encode(x).max()))
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-6, atol=1e-6 * float(x.abs().max()))


def test_a_second_dry_run_replaces_the_first_and_leaves_no_sae_of_it(sweep, written, tmp_path, without_figures):
    out = Path(shutil.copytree(written[0], tmp_path / "run"))
    (out / "mine.txt").touch()
    run.push([sweep / FIRST], REPOSITORY, run.Options(out, text_license="nobody's"))
    assert sweep_table.jobs(out) == [out / FIRST] and (out / "mine.txt").exists()
    assert "A sparse autoencoder (SAE), trained" in (out / "README.md").read_text()


def test_a_folder_with_other_files_is_refused(sweep, tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n\n- saesweep\n---\n")
    with pytest.raises(UsageError, match=r"--dry-run .*: holds other files; give an empty folder, or one that"):
        run.push([sweep], REPOSITORY, run.Options(tmp_path, text_license="x"))
    with pytest.raises(UsageError, match=r"--dry-run .*: holds other files"):
        run.push([sweep], REPOSITORY, run.Options(sweep, text_license="x"))


@pytest.mark.parametrize("folder, repository, more, line", [
    ("", "tiny", {}, "^tiny: is no name of a repository; write owner/name, such as your-name/tiny$"),
    ("", "a/b/c", {}, "^a/b/c: is no name of a repository .*; write owner/name$"),
    ("nothing", REPOSITORY, {}, "nothing: holds no SAE; give the folder of a sweep"),
    ("tiny/resid.1/failed", REPOSITORY, {}, r"failed: no SAE can be uploaded \(1 failed\); give a sweep with finished ones"),
    ("", REPOSITORY, {}, "^--text-license: the licence of the text files is not known; give it, such as --text-license"),
    ("", REPOSITORY, {"text_license": "x"}, "^me/tiny-saes: there is no token of the Hugging Face hub: `hf auth login`.*dry"),
])
def test_a_mistake_is_one_line_before_anything_is_written(folder, repository, more, line, sweep, monkeypatch):
    monkeypatch.setattr("saesweep.push.upload.get_token", lambda: None)
    monkeypatch.setattr("saesweep.push.copies.write", None)
    with pytest.raises(UsageError, match=line) as error:
        run.push([sweep / folder], repository, run.Options(**more))
    assert "\n" not in str(error.value)


def test_saes_with_one_place_in_the_repository_are_refused(sweep, tmp_path):
    other = shutil.copytree(sweep / FIRST, tmp_path / "other" / FIRST)
    with pytest.raises(UsageError, match=rf"{other} and .* would both be {FIRST} of the repository"):
        selected.choose([sweep, tmp_path / "other"])


def test_licences_are_those_of_the_file_and_of_the_options():
    def job(name, **source):
        return {"model": {"name": name, "source": source}, "text": {"name": "python_stdlib"}}

    assert licences([job("gemma3_270m", package="x")], None, None) == ("gemma", "Python Software Foundation License")
    assert licences([job("mine", hub="openai-community/gpt2")], None, "mine") == ("mit", "mine")
    with pytest.raises(UsageError, match="--license: the licence of the model someone/else is not known"):
        licences([job("gpt2", hub="someone/else")], None, None)
    with pytest.raises(UsageError, match="--license: the models of these SAEs have several, "):
        licences([job("gemma3_270m"), job("smollm2_135m")], None, None)


def test_every_model_of_conf_has_a_licence_but_activations_of_ones_own():
    for file in {*CONF.glob("*.yaml")} - {CONF / "activations.yaml"}:
        licences([{"model": OmegaConf.to_container(OmegaConf.load(file)), "text": {"name": "fineweb"}}], None, None)


@pytest.mark.parametrize("key, value, public", [
    ("text.glob", "a/b/*.jsonl", "*.jsonl"), ("text.glob", "mine.txt", "mine.txt"), ("model.source.hub", "/me/gpt2", "./gpt2"),
    ("model.source.hub", "a/b/c", "./c"), ("model.source.hub", "openai-community/gpt2", "openai-community/gpt2"),
    ("arch.file", "~/x.pt", "x.pt"), ("arch.file", "C:\\me\\x.pt", "x.pt"), ("arch.file", "../x", "x"),
    ("arch.mode", "a/b", "a/b"),
    ("arch.files", ["/home/me/x", "y"], ["x", "y"]),
])
def test_of_a_path_the_last_part_is_written(key, value, public):
    node: dict = {"name": "s", "logger": {"entity": "me"}}
    *groups, last = key.split(".")
    inner = node
    for group in groups:
        inner = inner.setdefault(group, {})
    inner[last] = value
    found = private.public(node)
    assert dict(files.flat(found.settings))[key] == public and "logger" not in found.settings
    assert [*found.rewritten] == ([key] if isinstance(value, str) and value != public else [])


def test_a_folder_that_is_named_by_a_path_is_renamed(sweep, tmp_path):
    value = "/home/jane/text.jsonl"
    job = tmp_path / "s/tiny/resid.1" / f"topk,glob={selected.variants.shown(value)}" / "4"
    shutil.copytree(sweep / FIRST, job)
    (one,) = selected.choose([tmp_path / "s"]).saes
    assert one.place.parts[2] == "topk,glob=text.jsonl"


def test_the_command_lists_the_largest_files_and_where_they_are(sweep, tmp_path, monkeypatch, capsys, without_figures):
    out = tmp_path / "run"
    words = ["saesweep push", str(sweep / FIRST), REPOSITORY, "--dry-run", str(out), "--text-license", "x"]
    monkeypatch.setattr(sys, "argv", words)
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[:2]] == ["pareto.html", f"{FIRST}/sae/sae_weights.safetensors"]
    assert lines[-3].endswith("in all, 1 SAE") and lines[-1].startswith(f"written to {out}; the same command without")


# The hub

@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_thisIsNobodysToken0123456789abcd")
        monkeypatch.chdir(tmp_path)
        yield server


def test_what_is_uploaded_is_the_dry_run_and_loads_from_the_hub(sweep, written, hub, monkeypatch, without_figures):
    address = run.push([sweep], REPOSITORY, run.Options(text_license="nobody's", private=True))
    assert address.startswith(f"{hub.url}/{REPOSITORY}/commit/") and hub.private == {REPOSITORY: True}
    drawn = {"pareto.png", "frequency.png", "pareto.svg", "frequency.svg"}
    dry = {name: (written[0] / name).read_bytes() for name in written[1].files if name not in drawn}
    uploaded = {name: content for name, content in hub.files[REPOSITORY].items() if name not in drawn}
    assert uploaded == dry
    assert hub.tokens == {"Bearer hf_thisIsNobodysToken0123456789abcd"}
    sae = saesweep.load(f"{REPOSITORY}/{FIRST}")
    assert sae.metrics == saesweep.load(sweep / FIRST).metrics and sae.config["sparsity"] == 4
    assert all(path.startswith(f"{FIRST}/") for path in hub.downloaded) and len(hub.downloaded) == 10
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert saesweep.load(f"{REPOSITORY}/{FIRST}/sae").folder == sae.folder and len(hub.downloaded) == 10
    with pytest.raises(UsageError, match=r"^me/tiny-saes/tiny/mlp.1/topk/4: .* and HF_HUB_OFFLINE forbids downloads"):
        saesweep.load(f"{REPOSITORY}/tiny/mlp.1/topk/4")


def test_what_the_hub_does_not_give_is_one_line(written, hub):
    hub.files = {REPOSITORY: {name: b"" for name in written[1].files}, "me/locked": {}}
    hub.gated = {"me/locked"}
    for typed, line in {
        "me/nothing/x": "^me/nothing/x: me/nothing cannot be read at revision main: .*; correct the name; where it is private",
        "me/locked/x@v1": "^me/locked/x@v1: me/locked cannot be read at revision v1: .*gated.*; .* `hf auth login`",
        f"{REPOSITORY}/tiny/resid.1": f"there are 2 below it, such as {REPOSITORY}/tiny/resid.1/jumprelu/4$",
        f"{REPOSITORY}/x": f"{REPOSITORY} holds no finished SAE there, at revision main; there are 4 in it, such as me/",
    }.items():
        with pytest.raises(UsageError, match=line) as error:
            saesweep.load(typed)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"^others/x: cannot be uploaded: .*the token must be one that may write there"):
        from saesweep.push.upload import upload

        upload(written[0] / "tiny", "others/x", False)


@pytest.mark.parametrize("typed", ["outputs/tiny/resid.1/topk/8", "./me/x/y", "/me/x/y", "~/me/x/y", "x"])
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(typed, hub):
    Path("outputs/tiny").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no finished SAE: give a job's folder"):
        saesweep.load(typed)


def test_settings_of_the_hub_that_would_call_something_are_refused(sweep, written, hub):
    def serve(change):
        folder = {str(file.relative_to(written[0])): file.read_bytes() for file in (written[0] / FIRST).rglob("*")
                  if file.is_file()}
        settings = OmegaConf.create(OmegaConf.to_container(OmegaConf.load(written[0] / FIRST / files.RESOLVED)))
        OmegaConf.update(settings, *change, force_add=True)
        hub.files = {f"me/{change[0]}": folder | {f"{FIRST}/{files.RESOLVED}": OmegaConf.to_yaml(settings).encode()}}
        return f"me/{change[0]}/{FIRST}"

    for change in (("arch.file", {"_target_": "torch.load"}), ("name", "${oc.env:HF_TOKEN}")):
        with pytest.raises(UsageError, match="or a _target_ beside that of its architecture, and is not read from the hub"):
            saesweep.load(serve(change))
    for target, line in (("torch.hub.load", "torch.hub.load: is no architecture of SAEs"), ("os.system", "must be the dotted")):
        hub.files.clear()
        with pytest.raises(UsageError, match=line):
            saesweep.load(serve(("arch._target_", target)))
        shutil.rmtree(constants.HF_HUB_CACHE)
