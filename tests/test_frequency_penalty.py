"""The quadratic-frequency penalty of JumpReLU: the reference's vectors, its layouts and ranks, and what null leaves alone."""
import pytest
import torch
from omegaconf import OmegaConf
from small import CONF, job, trained

from saesweep.arch.execution import SingleRank
from saesweep.arch.jumprelu import JumpReLU, heaviside
from saesweep.arch.latents import Latents
from saesweep.arch.ops import entries
from saesweep.config.check import check
from saesweep.old_names import renewed
from saesweep.training.build import build

PI = torch.tensor([[0.68, 0.2, 0.55], [0.6, 0.4, -0.3], [0.9, 0.62, 0.45], [0.52, 0.1, 0.28]], dtype=torch.float64)
NUMBERS = {"bandwidth": 0.4, "init_threshold": 0.5, "relative": False, "warm_start": 0.0, "threshold_tokens": 3200}


def penalty_of(pi, frequency_scale, ranks=None):
    """The penalty of these pre-activations at thresholds of .5 with a window of .4, and its gradient in the thresholds."""
    sae = JumpReLU(2, 3, 1, **NUMBERS, frequency_scale=frequency_scale).double()
    sae.execution.ranks = ranks or SingleRank()
    latents = Latents(pi.clone().requires_grad_(), tuple(pi.shape))
    penalty = sae.penalty(latents, latents, latents.at(sae.threshold))
    penalty.backward()
    assert latents.values.grad is None
    return penalty.item(), sae.threshold.grad.tolist()


@pytest.mark.parametrize(("frequency_scale", "value", "gradient"), [
    (None, 1.5, [-1.875, -1.25, -1.25]),
    (0.1, 12.75, [-39.375, -7.5, -7.5]),
    (0.01, 114.0, [-376.875, -63.75, -63.75]),
])
def test_the_penalty_and_its_gradient_in_the_thresholds(frequency_scale, value, gradient):
    """Rates 1, .25, .25; at .1 an activation of the latents costs 21, 6, 6, and 24 - 1.125 / .1 = 12.75."""
    found = penalty_of(PI, frequency_scale)
    assert found[0] == pytest.approx(value) and found[1] == pytest.approx(gradient)


def test_far_below_every_rate_the_scale_leaves_the_sum_of_squared_rates():
    scale = 1e-9
    value, gradient = penalty_of(PI, scale)
    assert value * scale == pytest.approx(1.125)
    assert [g * scale for g in gradient] == pytest.approx([-3.75, -0.625, -0.625])


class Other(SingleRank):
    """The rank with the other rows of a batch."""

    def __init__(self, pi):
        self.added = (pi > 0.5).sum(0).double(), torch.tensor(len(pi)).double()

    def all_reduce_(self, tensors):
        for tensor, more in zip(tensors, self.added, strict=True):
            tensor += more


def test_the_shares_of_two_ranks_add_up_to_the_penalty_of_the_whole_batch():
    """A rate is over all rows: the penalty of a mean is no mean of penalties."""
    parts = (penalty_of(PI[:1], 0.1, Other(PI[1:])), penalty_of(PI[1:], 0.1, Other(PI[:1])))
    assert 0.25 * parts[0][0] + 0.75 * parts[1][0] == pytest.approx(12.75)
    added = [0.25 * a + 0.75 * b for a, b in zip(parts[0][1], parts[1][1], strict=True)]
    assert added == pytest.approx([-39.375, -7.5, -7.5])
    assert penalty_of(PI[:1], 0.1)[0] * 0.25 + penalty_of(PI[1:], 0.1)[0] * 0.75 != pytest.approx(12.75, rel=0.01)


@pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])
def test_a_step_has_the_loss_and_gradients_of_the_equation(dense, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    torch.manual_seed(0)
    x, coefficient = torch.randn(64, 8, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    sae = JumpReLU(8, 96, 4, **{**NUMBERS, "init_threshold": 1.5}, frequency_scale=0.05).double()
    sae.execution.dense = dense
    step = sae.step(x, coefficient, 1.0)
    assert (step.latents.entries is None) == dense
    p = heaviside((x - sae.b_dec) @ sae.W_enc + sae.b_enc, sae.threshold.expand(64, -1), sae.bandwidth).mean(0)
    assert p.max() > 0.1
    defined = coefficient * (p * (1 + p / 0.05)).sum()
    torch.testing.assert_close(step.losses["sparsity"], defined)
    parameters = dict(sae.named_parameters())
    found, wanted = (torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                     for loss in (step.losses["sparsity"], defined))
    for name, a, b in zip(parameters, found, wanted, strict=True):
        if name == "threshold":
            torch.testing.assert_close(a, b)
        else:
            assert b is None and (a is None or not a.any()), name


def test_null_is_the_jumprelu_of_a_config_without_the_key():
    """An SAE of before the key was there is resumed, and its results are those of today's jumprelu."""
    now = job(None, "arch=jumprelu")
    check(now)
    assert now["arch"].pop("frequency_scale", None) is None
    assert build(now, 8).frequency_scale is None
    raw = OmegaConf.to_container(OmegaConf.load(CONF / "arch/jumprelu.yaml"))
    assert raw["frequency_scale"] is None and "frequency_scale" not in renewed({"arch": raw})["arch"]
    kept = renewed({"arch": {**raw, "frequency_scale": 0.1}})
    assert kept["arch"]["frequency_scale"] == 0.1


@pytest.mark.slow
def test_a_training_that_stopped_ends_as_one_that_did_not(tmp_path):
    jobs = [job(None, "arch=jumprelu_qf", "arch.warm_start=0.2", "tokens=1280", "save_tokens=320", "log_tokens=128")]

    def stop(module):
        if module.tokens == 896:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(jobs, tmp_path / "stopped", progress=stop)
    assert list((tmp_path / "stopped").rglob("checkpoint/*.safetensors"))
    resumed, whole = (trained(jobs, tmp_path / name).members[0].state_dict() for name in ("stopped", "whole"))
    assert whole.keys() == resumed.keys()
    for key, tensor in whole.items():
        assert torch.equal(resumed[key], tensor), key
