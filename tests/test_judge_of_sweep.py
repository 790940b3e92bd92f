"""A judge in the study of a sweep: which windows it gets, of which latents, and what becomes of its scores."""
import shutil

import pandas as pd
import pytest
from judge_server import Direct, Server
from small import RESOURCES, tiny
from studied import asked, trained  # noqa: F401 fixtures

from saesweep.storage import study_tables
from saesweep.study import collect, judging, run
from saesweep.study.judge import judge as whole
from saesweep.study.judge import settings as settings_of

pytestmark = pytest.mark.slow
FEW = ("tokens=4000", "dense_tokens=1000", "min_fires=10", "min_documents=3", "draws=20", "controls=[random]", "logits=false",
       "dense_probes=false", "labels=none")
JUDGE = ("explainer=openai", "explainer.model=standin", "explainer.base_url=http://127.0.0.1:9/v1", "explainer.latents=3",
         "explainer.windows=4", "explainer.controls=0")


@pytest.fixture(scope="module")
def judged(trained, tmp_path_factory):  # noqa: F811
    """One SAE with a study, and the requests that it took."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("judged") / "sweep")
    for other in ("tiny/mlp.1", "tiny/resid.1/jumprelu"):
        shutil.rmtree(folder / other)
    with pytest.MonkeyPatch.context() as patch, Server() as server:
        patch.setattr(whole, "model_of", lambda node, name, seed: Direct(server, name))
        patch.setattr(settings_of, "_package", lambda: None)
        settings = asked(*FEW, *JUDGE)
        assert run.run([folder], settings, RESOURCES).failed == {}
        yield folder, settings, server


def test_explanations_are_made_from_fit_and_tested_on_test_and_silent_windows_are_silent(judged):
    folder, settings, _ = judged
    sae = next(one for one in collect.collected(folder) if one.control is None)
    latents = [int(latent) for latent in sae.order if latent in sae.test.hits.latents][:5]
    scores = pd.DataFrame({"path": sae.path, "control": [None] * 5, "latent": sorted(latents), "rule_words": [""] * 5})
    found = list(judging._latents(sae, tiny().tokenizer, scores, {**settings["explainer"], "latents": 4}, settings["features"]))
    assert [one.latent for one in found] == latents[:4]  # a sample, not those of the lowest numbers
    texts = {half: " ".join(getattr(sae, half).text.documents) for half in ("fit", "test")}
    for one in found:
        for half, groups in (("fit", one.explain), ("test", one.test)):
            for name, windows in groups.items():
                for window in windows:
                    assert window.text in texts[half] and window.text not in texts["test" if half == "fit" else "fit"]
                    assert len(window.tokens) <= 32 and (window.values.max() > 0) == (name in ("top", "decile"))
        assert max(window.values.max() for window in one.explain["top"]) <= one.maximum


def test_a_study_with_a_judge_has_its_scores_in_the_tables(judged):
    folder, settings, server = judged
    scores = study_tables.read(folder / "study/scores.csv")
    asked_of = scores[scores["explanation_failed"].notna()]
    assert asked_of.groupby(asked_of["control"].fillna("")).size().tolist() == [3, 3]
    assert asked_of["detection"].dropna().between(0, 1).all() and asked_of["explanation"].notna().any()
    summary = study_tables.read(folder / "study/summary.csv").set_index(["path", "control", "score"])
    assert summary.loc[("tiny/resid.1/topk/4", None, "detection"), "failed"] >= 0
    assert (folder.parent / ".study/responses.sqlite").is_file()
    before = len(server.bodies)
    assert run.run([folder], settings, RESOURCES).failed == {} and len(server.bodies) == before
