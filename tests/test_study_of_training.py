"""`study=rules`: when the study of a training is made, what it leaves as it was, and what is refused before the training."""
from pathlib import Path

import pytest
from small import RESOURCES
from standin.cli import train
from studied import asked, trained  # noqa: F401 fixture

from hydra_plugins.saesweep import sources
from saesweep.config.study_schema import CONTROLS
from saesweep.errors import UsageError
from saesweep.study import plan as ahead
from saesweep.study import run, subjects
from saesweep.study.run import Result

PLACE = Path("outputs/default/standin/resid.1")
SWEEP = ("-m", "arch=flat,round", "sparsity=16")
SINGLE = ("arch=flat", "sparsity=16")
MODES = [SINGLE, pytest.param(SWEEP, marks=pytest.mark.slow)]

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, hydra_restore_singletons):
    monkeypatch.chdir(tmp_path)
    yield
    sources.register()


@pytest.fixture
def studies(monkeypatch):
    """Stands in for the study; the sweeps that were studied, with the settings."""
    made = []

    def study(sweeps, settings, resources):
        assert Path(sweeps[0], "pareto.csv").is_file() and Path(sweeps[0], "pareto.html").is_file()
        made.append((sweeps, settings))
        return Result({}, ["one sentence"])

    monkeypatch.setattr(run, "run", study)
    monkeypatch.setattr(ahead, "plan_ahead", lambda sweep, new, *_: f"{len(new)} SAEs are trained first")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("words", [SWEEP, SINGLE])
def test_a_training_ends_with_the_study_of_its_sweep(words, studies, capsys):
    assert train(*words, "study=rules", "study.features=7").code == 0
    [(sweeps, settings)] = studies
    assert sweeps == [Path("outputs/default")] and settings["features"] == 7 and settings["explainer"] == {"name": "none"}
    assert settings == {**asked("features=7", *(f"{key}={settings[key]}" for key in FEW))}
    out = capsys.readouterr().out
    assert f"then the study of outputs/default\n{2 if words is SWEEP else 1} SAEs are trained first" in out
    assert out.index("outputs/default/pareto.html") < out.index("study of outputs/default\none sentence")


FEW = ("tokens", "dense_tokens", "device", "forward_tokens")


@pytest.mark.slow
def test_without_it_nothing_of_a_study_is_done_and_that_of_a_finished_sweep_trains_nothing(studies, capsys):
    assert train(*SWEEP).code == 0 and studies == [] and "study" not in capsys.readouterr().out
    before = {file: file.stat().st_mtime_ns for file in PLACE.rglob("eval.json")}
    assert train(*SWEEP, "study=rules", "study.seed=3", "explainer=rules").code == 0 and len(studies) == 1
    assert len(before) == 2 and before == {file: file.stat().st_mtime_ns for file in PLACE.rglob("eval.json")}
    out = capsys.readouterr().out
    assert "0 SAEs to train in 0 groups, 2 already finished" in out and "\n\nthe study of outputs/default\n" in out


@pytest.mark.slow
def test_a_plan_says_that_the_study_follows_and_makes_none(studies, capsys):
    for words in (SWEEP, ("arch=flat",)):
        assert train(*words, "study=rules", "plan=true").code == 0 and studies == [] and not PLACE.exists()
        assert "then the study of outputs/default\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_sae_does_not_prevent_the_study_of_the_others(studies):
    ended = train(*SWEEP, "study=rules", "text.fail=round")
    assert ended.code == 1 and len(studies) == 1


@pytest.mark.slow
def test_there_is_no_study_where_every_sae_has_failed(studies):
    assert train("-m", "arch=flat", "sparsity=16", "study=rules", "text.fail=flat").code == 1 and studies == []


@pytest.mark.slow
@pytest.mark.parametrize("words", MODES)
def test_a_study_that_fails_leaves_the_results_and_says_how_to_try_again(words, studies, monkeypatch):
    """The second one is that of the finished sweep; so is a third, which names an SAE that could not be studied."""
    for error, line in ((UsageError("features=7: too many"), "study.features=7: too many"),
                        (RuntimeError("a bug"), "RuntimeError: a bug")):
        monkeypatch.setattr(run, "run", raising(error))
        ended = train(*words, "study=rules")
        assert ended.code == 1 and ended.error == (f"the study of outputs/default failed: {line}\nthe SAEs are finished; the "
                                                   "same command, or saesweep study outputs/default, tries again")
        assert (PLACE / "flat/16/eval.json").is_file() and Path("outputs/default/pareto.csv").is_file()
    if words is SWEEP:
        monkeypatch.setattr(run, "run", lambda *_: Result({"flat/16": RuntimeError("a bug")}, []))
        assert train(*words, "study=rules").error == "1 failed; the same command tries again\n  flat/16: a bug"


def raising(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.slow
@pytest.mark.parametrize("words, line", [
    (["explainer=local", "explainer.model=smolm2"], "explainer.model=smolm2: there is no conf/model/smolm2.yaml"),
    (["explainer=local"], "explainer.model=null: write explainer.model=..."),
    (["explainer=local", "explainer.model=tiny", "explainer.max_requests=3"], "explainer.max_requests=3: "),
    (["explainer=openai", "explainer.model=x"], "explainer.send_text=false: held-out text would be sent to api.openai.com"),
    (["explainer=openai", "explainer.model=x", "explainer.send_text=true"], "explainer.key_variable=OPENAI_API_KEY: set this"),
    (["explainer=openai", "explainer.key_variable=sk-1"], "explainer.key_variable: must be the name of an "),
    (["study.device=cuda"], "study.device=cuda: torch"),
    (["study.delta=0"], "study.delta=0: must be above 0"),
])
@pytest.mark.parametrize("mode", MODES)
def test_what_would_end_the_study_is_refused_before_a_folder_is_made(mode, words, line, monkeypatch):
    if "explainer=openai" in words:
        pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = train(*mode, "study=rules", "study.controls=[]", *words)
    assert ended.code == 1 and line in ended.error
    assert not PLACE.exists() and "sk-1" not in ended.error


@pytest.mark.slow
def test_a_launcher_whose_jobs_know_nothing_of_each_other_makes_no_study():
    ended = train(*SWEEP, "hydra/launcher=basic", "study=rules")
    assert ended.code == 1 and "study=rules: this launcher trains each SAE by itself" in ended.error
    assert "run saesweep study outputs/default afterwards" in ended.error


def test_the_controls_that_the_plan_counts_are_those_of_the_study(trained):  # noqa: F811
    found = subjects.of_sweep(trained, CONTROLS, 0)
    saes = [one.config for one in found if one.control is None]
    assert ahead.controls(saes, CONTROLS) == len(found) - len(saes) == 6
    wider = {**saes[0], "width": 2 * saes[0]["width"]}
    assert ahead.controls([*saes, wider], CONTROLS) == 7 and ahead.controls(saes, []) == 0


def test_a_study_with_other_settings_is_refused_before_more_saes_are_trained(trained, monkeypatch):  # noqa: F811
    found = subjects.of_sweep(trained, [], 0)
    monkeypatch.setattr(subjects, "finished", lambda *_: found[:1])
    monkeypatch.setattr(ahead.passes, "changed", refuse)
    with pytest.raises(UsageError, match="collected with other settings"):
        ahead.plan_ahead(trained, {trained / "new": found[0].config}, asked("controls=[]"), RESOURCES)


def refuse(there, *_):
    raise UsageError(f"{there[0].label} was collected with other settings")
