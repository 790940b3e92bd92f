"""From a trained sweep to the tables of its study and the columns of its results."""
import shutil

import pandas as pd
import pytest
from small import RESOURCES
from studied import asked, swept, trained  # noqa: F401 fixtures

import saesweep
from saesweep.errors import UsageError
from saesweep.storage import study_tables
from saesweep.study import run

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


def test_scoring_again_writes_the_same_bytes(studied):
    folder, _ = studied
    before = {name: (folder / "study" / name).read_bytes() for name in TABLES}
    assert run.run([folder], asked(*FEW), RESOURCES).failed == {}
    assert {name: (folder / "study" / name).read_bytes() for name in TABLES} == before


def test_probes_on_the_activations_are_at_least_as_good_as_one_latent(studied):
    summary = study_tables.read(studied[0] / "study/summary.csv")
    means = summary[summary["control"].isna()].pivot_table("uniform", "path", "score")
    assert (means["probe_x"] > means["probe_1"]).all()
    assert means["absorption"].between(0, 1).all() and means["logit_kurtosis"].notna().sum() == 2  # those of resid


def test_the_main_scores_are_columns_of_the_results(studied):
    found = saesweep.study(studied[0])
    assert isinstance(found, pd.DataFrame) and len(found) == 4 and found[["rule", "coverage", "probe_1"]].notna().all(axis=None)


def test_several_sweeps_are_compared_in_a_folder_of_their_own(studied, tmp_path):
    folder, _ = studied
    with pytest.raises(UsageError, match="2 sweeps: name the folder of their study, such as out=outputs/both"):
        run.run([folder, folder.parent], asked(*FEW), RESOURCES)
    other = shutil.copytree(folder, tmp_path / "other")
    assert run.run([folder, other], asked(*FEW, f"out={tmp_path / 'both'}"), RESOURCES).failed == {}
    summary = study_tables.read(tmp_path / "both/study/summary.csv")
    assert summary.loc[summary["control"].isna(), "path"].nunique() == 8


def test_a_known_dictionary_is_studied_without_text(tmp_path):
    folder = swept(tmp_path / "sweep", None, "tokens=6400", "model.source.synthetic={features: 32}")
    assert run.run([folder], asked(*FEW, "controls=[random]"), RESOURCES).failed == {}
    assert "known_f1" in set(study_tables.read(folder / "study/summary.csv")["score"])
