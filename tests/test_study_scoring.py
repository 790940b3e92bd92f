"""From a trained sweep to the tables of its study and the columns of its results."""
import json
import shutil
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import warm
from small import RESOURCES, write_text
from standin.cli import ENV
from studied import asked, swept, trained, trained_on_dictionary  # noqa: F401 fixtures
from torch import distributed as dist

import saesweep
from saesweep.errors import UsageError
from saesweep.storage import study_tables
from saesweep.study import run, scoring
from saesweep.study.collect import collect
from saesweep.study.comparison import replicates
from saesweep.study.comparison.report import blocks
from saesweep.study.score_group import Group
from saesweep.study.subjects import HITS

pytestmark = pytest.mark.slow
FEW = ("tokens=4000", "dense_tokens=1000", "min_fires=10", "min_documents=3", "draws=20", "label_tokens=50",
       "label_documents=5")
TABLES = ("scores.csv", "summary.csv", "labels.csv", "study.json", "replicates.safetensors")


@pytest.fixture(scope="module")
def studied(trained, tmp_path_factory):  # noqa: F811
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("studied") / "sweep")
    return folder, run.run([folder], asked(*FEW), RESOURCES)


def test_a_study_writes_its_tables_and_says_which_architecture_is_better(studied):
    folder, result = studied
    assert result.failed == {} and all((folder / "study" / name).is_file() for name in TABLES)
    assert result.lines[0] == "tiny mlp.1" and any("jumprelu" in line and "topk" in line for line in result.lines)
    scores = study_tables.read(folder / "study/scores.csv")
    per_sae = scores[scores["control"].isna()].groupby("path").size()
    assert len(per_sae) == 4 and (per_sae >= 10).all()  # strata add to the 10 that are asked for


@pytest.mark.usefixtures("without_type_checks", "without_figures")
def test_scoring_again_writes_the_same_bytes(studied):
    folder, _ = studied
    before = {name: (folder / "study" / name).read_bytes() for name in TABLES}
    assert run.run([folder], asked(*FEW), RESOURCES).failed == {}
    assert {name: (folder / "study" / name).read_bytes() for name in TABLES} == before


def tables(folder):
    return {name: (folder / "study" / name).read_bytes() for name in TABLES}


def kept(folder):
    """By path the files of the scores of each SAE and control."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("scores.json"))}


@pytest.fixture
def unscored(studied, tmp_path):
    """A copy of the sweep whose activations are collected."""
    folder = shutil.copytree(studied[0], tmp_path / "sweep")
    for file in folder.rglob("scores.json"):
        file.unlink()
    return folder


@pytest.fixture
def scored_anew(monkeypatch):
    """The names of what is scored from now on; the text is not to be read."""
    found, score = [], Group.score
    monkeypatch.setattr(Group, "score", lambda self, one: found.append(one.label) or score(self, one))
    monkeypatch.setattr("saesweep.study.activations.FromText.rows", lambda *_: pytest.fail("the text was read"))
    return found


@pytest.mark.usefixtures("without_type_checks", "without_figures")
def test_other_settings_of_scores_redo_what_depends_on_them_and_read_no_text(studied, tmp_path, scored_anew):
    """Each setting is changed beside those before it, and in the end all are as they were; only then the pages are made.

    Of the SAEs and controls of one hook point, whose scores are those that they have beside the others.
    """
    folder, few = shutil.copytree(studied[0], tmp_path / "sweep"), list(FEW)
    for place in ("tiny/mlp.1", "study/control/tiny/mlp.1"):
        shutil.rmtree(folder / place)
    scoring.run_scores([folder], asked(*few), RESOURCES)
    first = before = tables(folder)
    assert scored_anew == [] and first != tables(studied[0])
    for word, count in {"delta=0.2": 0, "draws=30": 5, "min_fires=30": 5}.items():
        few = [*(one for one in few if one.split("=")[0] != word.split("=")[0]), word]
        assert collect([folder], asked(*few), RESOURCES) == {}
        scoring.run_scores([folder], asked(*few), RESOURCES)
        assert len(scored_anew) == count and tables(folder) != before, word
        before = tables(folder)
        scored_anew.clear()
    assert run.run([folder], asked(*FEW), RESOURCES).failed == {}
    assert tables(folder) == first and len(kept(folder)) == 5 and kept(folder).items() <= kept(studied[0]).items()


@pytest.mark.usefixtures("without_type_checks")
def test_an_sae_that_is_collected_anew_is_scored_anew_alone(studied, tmp_path, monkeypatch):
    folder, found, score = shutil.copytree(studied[0], tmp_path / "sweep"), [], Group.score
    monkeypatch.setattr(Group, "score", lambda self, one: found.append(one.label) or score(self, one))
    hits = folder / "tiny/resid.1/topk/4/study/hits.safetensors"
    hits.write_bytes(hits.read_bytes()[:-4] + b"\0\0\0\0")
    (folder / "tiny/mlp.1/topk/4/study/scores.json").write_text('{"identity": ')  # damaged
    scoring.run_scores([folder], asked(*FEW), RESOURCES)
    assert sorted(found) == ["tiny/mlp.1/topk/4", "tiny/resid.1/topk/4"]


@pytest.mark.process
def test_a_study_that_is_killed_while_it_scores_loses_one_sae_and_ends_the_same(studied, unscored, tmp_path):
    script = [sys.executable, __file__, "1", "0", str(unscored), str(tmp_path / "meet")]
    process, files = warm.popen(script, tmp_path, ENV), [file.with_name("scores.json") for file in unscored.rglob(HITS)]
    while sum(file.exists() for file in files) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    there = kept(unscored)
    assert 3 <= len(there) < 10 and all(json.loads(content) for content in there.values())
    assert warm.run(script, tmp_path, ENV).returncode == 0
    assert tables(unscored) == tables(studied[0]) and kept(unscored) == kept(studied[0])


@pytest.mark.process
def test_two_ranks_score_what_one_scores(studied, unscored, tmp_path):
    words = [sys.executable, __file__, "2"]
    ranks = [warm.popen([*words, str(rank), str(unscored), str(tmp_path / "meet")], tmp_path, ENV) for rank in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    shares = [set((unscored / f"scored-{rank}").read_text().split("\n")) for rank in range(2)]
    assert [len(share) for share in shares] == [5, 5] and not shares[0] & shares[1]
    assert kept(unscored) == kept(studied[0]) and tables(unscored) == tables(studied[0])


def on_a_rank(world, rank, folder, meet):
    """Score a sweep that is collected, as `rank` of `world`."""
    found, score = [], Group.score
    Group.score = lambda self, one: found.append(one.label) or score(self, one)
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=world)
    scoring.run_scores([folder], asked(*FEW), RESOURCES)
    (folder / f"scored-{rank}").write_text("\n".join(found))
    if world > 1:
        dist.destroy_process_group()


def test_probes_on_the_activations_are_at_least_as_good_as_one_latent(studied):
    summary = study_tables.read(studied[0] / "study/summary.csv")
    means = summary[summary["control"].isna()].pivot_table("uniform", "path", "score")
    assert (means["probe_x"] > means["probe_1"]).all()
    assert means["absorption"].between(0, 1).all() and means["logit_kurtosis"].notna().sum() == 2  # those of resid


def test_the_main_scores_are_columns_of_the_results(studied):
    found = saesweep.study(studied[0])
    assert isinstance(found, pd.DataFrame) and len(found) == 4 and found[["rule", "coverage", "probe_1"]].notna().all(axis=None)


@pytest.mark.usefixtures("without_type_checks", "without_figures")
def test_several_sweeps_are_compared_in_a_folder_of_their_own(studied, tmp_path):
    folder, _ = studied
    with pytest.raises(UsageError, match="2 sweeps: name the folder of their study, such as out=outputs/both"):
        run.run([folder, folder.parent], asked(*FEW), RESOURCES)
    other = swept(tmp_path / "shuffled", write_text(tmp_path, documents=100), "+model.source.shuffle=0", archs=("topk",))
    assert run.run([folder, other], asked(*FEW, f"out={tmp_path / 'both'}"), RESOURCES).failed == {}
    summary = study_tables.read(tmp_path / "both/study/summary.csv")
    assert summary.loc[summary["control"].isna(), "path"].nunique() == 5
    assert_compared(tmp_path / "both/study")


def assert_compared(study):
    """The SAEs of a language model and those of the same model with shuffled weights, which has other sinks."""
    known = replicates.load(study / study_tables.REPLICATES)
    assert len(set(known.texts.values())) == 1 and len(known.texts) == 5
    tokens = [one for (path, score), one in known.documents.items() if score == "rule" and path.endswith("resid.1/topk/4")]
    assert len(tokens) == 2 and (tokens[0] != tokens[1]).any()
    found = json.loads((study / study_tables.COMPARISON).read_text())
    (rule,) = [block for block in blocks(found["places"]) if (block["score"], block["mean"]) == ("rule", "uniform")
               and len(block["curves"]) == 3]
    assert ("topk (shuffled)", "topk (sweep)") in {(gap["a"], gap["b"]) for gap in rule["gaps"]}
    assert rule["on_other_text"] == []
    assert {one["arch"] for one in rule["controls"]} == {"jumprelu", "topk (shuffled)", "topk (sweep)"}


@pytest.mark.usefixtures("without_type_checks")
def test_a_known_dictionary_is_studied_without_text(trained_on_dictionary, tmp_path):  # noqa: F811
    folder = shutil.copytree(trained_on_dictionary, tmp_path / "sweep")
    assert run.run([folder], asked(*FEW, "controls=[random]"), RESOURCES).failed == {}
    assert "known_f1" in set(study_tables.read(folder / "study/summary.csv")["score"])


if __name__ == "__main__":
    on_a_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
