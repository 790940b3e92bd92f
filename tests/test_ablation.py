"""Ablating the latents that fire often: what is chosen, what it does to FVU and delta loss, and the command."""
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from small import RESOURCES, write_text
from studied import swept

from saesweep.arch.base import SparseAutoencoder
from saesweep.data.normalisation import Statistics
from saesweep.errors import UsageError
from saesweep.runtime.rng import generator
from saesweep.storage import files
from saesweep.study.ablation import __main__ as command
from saesweep.study.ablation import results, run, summary, text
from saesweep.study.ablation.latents import Moments, ablations, moments, random_latents, shares
from saesweep.study.ablation.measure import measure
from saesweep.study.ablation.results import replicates
from saesweep.study.ablation.rows import Part, Rows
from saesweep.study.ablation.settings import settings
from saesweep.training.loaded import as_loaded

D_IN = 4


class Identity(SparseAutoencoder):
    """Latents are the coordinates of x, and the reconstruction is x."""

    saved_as = "standard"

    def __init__(self):
        super().__init__(D_IN, D_IN, 1)
        self.W_dec = torch.nn.Parameter(torch.eye(D_IN), requires_grad=False)

    def activate(self, pi):
        return pi

    def encode(self, x):
        return x

    def step(self, x, coefficient, progress):
        raise AssertionError("not called")


def planted() -> torch.Tensor:
    """[8, 4] rows of 8 tokens in 4 documents: latent 0 fires on every token and carries half of the variance, latent 1 is
    constant, latents 2 and 3 fire on half of the tokens and carry a quarter each."""
    a = torch.tensor([1.0, 1 + 8**0.5]).repeat(4)  # variance 2
    b = torch.tensor([0.0, 0, 2, 2, 0, 0, 2, 2])  # variance 1, uncorrelated with the others
    c = torch.tensor([2.0, 2, 2, 2, 0, 0, 0, 0])
    return torch.stack([a, torch.full((8,), 4.0), b, c], 1)


def measured(x, *words):
    sae = as_loaded(Identity())
    sae.statistics = Statistics.of(x, center=True, max_norm=None)
    part = Part(x, torch.arange(8) // 2)
    return measure(sae, Rows(part, part, None), settings(words), 0)


def fvus(found) -> dict:
    values = {(one.ablated, one.set_to, one.draw): float(error.sum() / found.variance.sum())
              for one, error in zip(found.ablations, found.error, strict=True)}
    assert values.pop(("none", "", 0)) == 0
    return values


def test_mean_ablation_of_a_latent_that_carries_half_of_the_variance_raises_the_fvu_by_half():
    x = planted()
    found = fvus(measured(x, "threshold=0.6", "draws=0"))  # latents 0 and 1
    assert found["frequent", "mean", 0] == pytest.approx(0.5, rel=1e-6)
    zero = x[:, :2].double().square().sum() / (x - x.mean(0)).double().square().sum()
    assert found["frequent", "zero", 0] == pytest.approx(float(zero), rel=1e-6)


def test_mean_ablation_of_a_constant_latent_changes_nothing():
    x = planted()
    x[:, 0] = 0  # so that the constant latent alone is over the threshold
    found = measured(x, "threshold=0.6", "draws=0")
    assert found.ablations[1].latents.tolist() == [1] and fvus(found)["frequent", "mean", 0] == 0
    assert fvus(found)["frequent", "zero", 0] == 8 * 16 / found.variance.sum()


def test_ablating_nothing_changes_no_bit():
    found = measured(planted() + torch.rand(8, D_IN, generator=generator(0)), "threshold=1", "draws=2")
    assert len(found.ablations) == 7 and all(len(one.latents) == 0 for one in found.ablations)
    assert all((error == found.error[0]).all() for error in found.error)


def test_the_moments_are_frequency_mean_and_energy():
    x = planted()
    found = moments(Identity(), x)
    assert found.frequency.tolist() == [1, 1, 0.5, 0.5] and found.mean.tolist()[1:] == [4, 1, 1]
    assert found.energy.tolist()[1:] == [16, 2, 2]
    part = shares(found, torch.tensor([1, 2]))
    assert part["share_of_firings"] == 0.5 and part["share_of_latents"] == 0.5
    assert part["share_of_energy"] == pytest.approx(18 / float(found.energy.sum()))


def made_moments() -> Moments:
    frequency = torch.rand(200, generator=generator(1), dtype=torch.float64) * 0.09
    frequency[:3], frequency[3:6] = 0.5, 0.0  # dead latents are not drawn
    return Moments(frequency, frequency, frequency.flip(0))


def drawn(seed: int, number: int = 0) -> list:
    return [(one.ablated, one.latents.tolist()) for one in ablations(made_moments(), settings([f"seed={seed}"]), number)]


def test_draws_are_determined_by_the_seed_and_differ_from_each_other():
    assert drawn(0) == drawn(0) != drawn(1) and drawn(0) != drawn(0, number=1)
    firings = [latents for name, latents in drawn(0) if name == "random_firings"][::2]
    assert len(firings) == 3 and len({tuple(one) for one in firings}) == 3
    assert not {*range(6)} & {latent for one in firings for latent in one}


def test_a_control_has_as_many_firings_as_the_frequent_latents_or_all_that_there_are():
    found = made_moments()
    for one in ablations(found, settings(), 0):
        if one.ablated == "random_firings":
            sum_ = float(found.frequency[one.latents].sum())
            assert 1.5 <= sum_ < 1.5 + 0.09
    few = found._replace(frequency=torch.tensor([0.5, 0.05, 0.05, 0.0] + [0.0] * 196, dtype=torch.float64))
    controls = [one for one in ablations(few, settings(), 0) if one.ablated == "random_firings"]
    assert [one.latents.tolist() for one in controls] == [[1, 2]] * 2  # a single draw, set to 0 and to the means


def test_weights_are_added_up_in_a_random_order_until_they_reach_what_is_wanted():
    weights = torch.ones(10, dtype=torch.float64)
    assert len(random_latents(torch.arange(10), weights, 3.0, generator(0))) == 3
    assert len(random_latents(torch.arange(10), weights, 2.5, generator(0))) == 3
    assert len(random_latents(torch.arange(10), weights, 0.0, generator(0))) == 0


def test_replicates_leave_out_one_document_each():
    found = replicates(np.array([1.0, 2.0]), np.array([2.0, 2.0]))
    assert found.rows.tolist() == [0.75, 1.0, 0.5] and found.weights.tolist() == [2, 2]


@pytest.mark.parametrize("words, line", [
    (["thresold=0.1"], "thresold=0.1: there is no key thresold; did you mean threshold?"),
    (["threshold=2"], "threshold=2: must be at least 0 and at most 1"),
    (["evaluation.tokens=0"], "evaluation.tokens=0: must be at least 1"),
    (["device=gpu"], "device=gpu: must be auto or cpu or cuda"),
])
def test_a_setting_that_cannot_work_is_one_line(words, line):
    with pytest.raises(UsageError) as refused:
        settings(words)
    assert str(refused.value) == line


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two seeds of each of two architectures; no test changes it."""
    folder = tmp_path_factory.mktemp("ablated")
    file = write_text(folder, documents=100)
    return swept(folder / "sweep", file, "evaluation.lm_tokens=256")


def asked(*words):
    return settings(["device=cpu", "threshold=0.05", *words])


@pytest.fixture(scope="module")
def tables(sweep, tmp_path_factory):
    return run.run([sweep], asked("draws=2"), tmp_path_factory.mktemp("out"), RESOURCES)


@pytest.mark.slow
def test_without_ablation_the_numbers_are_those_of_the_evaluation(sweep, tables):
    none = tables.rows[tables.rows["ablated"] == "none"]
    assert len(none) == 2
    for row in none.to_dict("records"):
        wanted = files.numbers(sweep / row["path"])
        assert row["fvu"] == pytest.approx(wanted["fvu"], rel=1e-6)
        assert row["delta_loss"] == pytest.approx(wanted["delta_loss"], abs=1e-12)


@pytest.mark.slow
def test_a_row_per_ablation_says_what_it_is_and_does(tables):
    rows = tables.rows
    frequent = rows[rows["ablated"] == "frequent"]
    assert (frequent["latents"] > 0).all() and (frequent["share_of_firings"] > frequent["share_of_latents"]).all()
    assert (frequent["fvu_difference"] > 0).all() and frequent["delta_loss_difference"].notna().all()
    assert rows.loc[rows["draw"] == 1, "delta_loss"].isna().all()  # lm_draws=1
    read = [pd.read_csv(file) for file in tables.files]
    assert [len(one) for one in read] == [len(rows), len(tables.summary)]


@pytest.mark.slow
def test_the_summary_has_a_row_per_kind_and_the_difference_to_each_control(tables):
    topk = tables.summary[tables.summary["arch"] == "topk"].set_index(["ablated", "set_to"])
    frequent, control, less = (topk.loc[(name, "zero")] for name in ("frequent", "random_firings", "frequent - random_firings"))
    for key in ("fvu_difference", "delta_loss_difference"):
        assert less[key] == pytest.approx(frequent[key] - control[key], abs=1e-12)
    assert control["fvu_difference_smallest"] <= control["fvu_difference"] <= control["fvu_difference_largest"]
    shown = text.text(tables.summary)
    assert "tiny resid.1, topk 4, one seed" in shown and "\n  frequent = zero " in shown and "nan" not in shown


def test_seeds_are_averaged_and_add_to_the_interval():
    def row(seed, shift):
        value = {"fvu": replicates(np.ones(12) + shift, np.full(12, 10.0))}
        names = dict.fromkeys(summary.GROUP, "a") | {"ablated": "frequent", "set_to": "zero", "draw": 0, "path": str(seed)}
        return results.Row(names, dict.fromkeys(results.SHARES, 0.5), value, value)

    one, two = summary.summary([row(0, 0.0)]).iloc[0], summary.summary([row(0, 0.0), row(1, 1.0)]).iloc[0]
    assert one["fvu_difference"] == pytest.approx(0.1) and one["fvu_low"] == pytest.approx(0.1)
    assert two["fvu_difference"] == pytest.approx(0.15) and two["seeds"] == 2
    assert two["fvu_high"] == pytest.approx(0.15 + 12.7062 * 0.05, rel=1e-4)  # Student's quantile of one degree of freedom


@pytest.mark.slow
def test_the_command_writes_two_tables_and_leaves_the_sweep_as_it_is(sweep, tmp_path, monkeypatch, capsys):
    job = next(sweep.glob("*/*/topk/*"))
    before = sorted(sweep.rglob("*"))
    words = [str(job), "--out", str(tmp_path / "out"), "device=cpu", "threshold=0.05", "evaluation.lm_tokens=64", "draws=1"]
    monkeypatch.setattr(sys, "argv", ["saesweep ablate", *words])
    command.main()
    shown = capsys.readouterr()
    assert "1 of 1 SAEs ablated" in shown.err and "topk 4, one seed" in shown.out and "jumprelu" not in shown.out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["ablation.csv", "ablation_summary.csv"]
    assert sorted(sweep.rglob("*")) == before


@pytest.mark.slow
def test_a_known_dictionary_has_no_delta_loss(tmp_path):
    known = swept(tmp_path / "known", None, archs=("topk",))
    found = run.run([known], asked("draws=1", "evaluation.tokens=2048"), None, RESOURCES)
    assert "delta_loss" not in found.rows and found.rows["fvu_low"].notna().all()
    assert (known / "ablation.csv").is_file()


@pytest.mark.slow
def test_what_cannot_be_measured_is_refused(sweep, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"evaluation\.tokens=1000000000: there are .* held-out tokens"):
        run.run([sweep], asked("evaluation.tokens=1e9"), tmp_path, RESOURCES)
    monkeypatch.setattr(sys, "argv", ["saesweep ablate", "draws=1"])
    with pytest.raises(SystemExit, match=r"^draws=1: name the folder of a sweep too, such as outputs/default$"):
        command.main()
