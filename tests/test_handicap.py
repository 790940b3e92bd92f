"""BatchTopK's cap on how often a latent fires: what moves a handicap, what it does to the selection, what is saved."""
import pytest
import torch
from omegaconf import OmegaConf
from small import CONF

from saesweep.arch.batchtopk import BatchTopK
from saesweep.arch.handicap import Handicap
from saesweep.arch.ops import entries
from saesweep.old_names import renewed

NUMBERS = {"threshold_tokens": 64, "alpha": 0.0, "k_aux": 4, "aux_tokens": 10**6}
ZERO = torch.zeros(())


def test_a_handicap_rises_with_the_excess_over_the_limit_and_falls_to_0():
    handicap = Handicap(5, limit=0.1, step=0.01)
    handicap.value += torch.tensor([0.0, 0.0, 0.02, 0.02, 0.005])
    handicap.frequency.copy_(torch.tensor([0.5, 0.12, 0.1, 0.05, 0.0]))
    assert handicap.update_().tolist() == pytest.approx([0.01, 0.002, 0.02, 0.015, 0.0])


def identity(**more):
    """Latents that are the coordinates of x."""
    sae = BatchTopK(3, 3, 1, **NUMBERS, **more)
    with torch.no_grad():
        for matrix in (sae.W_enc_T, sae.W_dec):
            matrix.copy_(torch.eye(3))
    return sae


@pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])
def test_the_largest_differences_of_the_batch_are_selected_and_keep_their_values(dense, monkeypatch):
    """Of .9, .8, .7, .6 the two largest are .9 and .8; less .5 for the first latent, .7 and .6 are."""
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    x = torch.tensor([[0.9, 0.6, 0.0], [0.8, 0.0, 0.7]])
    sae = identity(frequency_limit=0.5)
    sae.execution.dense = dense
    assert sae.step(x, ZERO, 0.0).latents.dense().equal(torch.tensor([[0.9, 0, 0], [0.8, 0, 0]]))
    sae.handicap.value.copy_(torch.tensor([0.5, 0.0, 0.0]))
    sae.handicap.frequency.fill_(0.5)  # as it should be: no handicap moves
    step = sae.step(x, ZERO, 0.0)
    assert step.latents.dense().equal(torch.tensor([[0, 0.6, 0], [0, 0, 0.7]]))
    assert sae.handicap.frequency.tolist() == [0.0, 0.5, 0.5]
    assert float(sae.batch_threshold.last) == pytest.approx(0.6)


def test_the_thresholds_are_the_common_one_and_the_handicaps():
    sae = identity(frequency_limit=0.1).requires_grad_(False)
    sae.batch_threshold.value.fill_(0.5)
    sae.handicap.value.copy_(torch.tensor([0.2, 0.0, 0.1]))
    assert sae.exported()["threshold"].tolist() == pytest.approx([0.7, 0.5, 0.6])
    x = torch.tensor([[0.65, 0.65, 0.65]])
    assert sae.encode(x).tolist() == [[0.0, x[0, 1], x[0, 2]]]
    assert sae.margin(x)[0].tolist() == pytest.approx([-0.05, 0.15, 0.05])
    other = identity(frequency_limit=0.1).requires_grad_(False)
    other.load_exported_(sae.exported())
    assert torch.equal(other.encode(x), sae.encode(x))


@pytest.mark.slow
def test_no_latent_stays_above_the_limit():
    """Two of 32 latents are larger than the others by a bias, and would fire on most tokens."""
    torch.manual_seed(0)
    sae = BatchTopK(8, 32, 2, **NUMBERS, frequency_limit=0.2, handicap_step=0.05)
    with torch.no_grad():
        sae.b_enc[:2] += 3.0
    frequency = []
    for _ in range(400):
        sae.step(torch.randn(256, 8), ZERO, 0.0)
        frequency.append(sae.handicap.frequency.clone())
    assert (frequency[0][:2] > 0.7).all()
    last = torch.stack(frequency[-50:]).mean(0)
    assert last.max() < 0.22 and last.sum() == pytest.approx(2, abs=0.01) and (last[:2] > 0.18).all()


def test_null_is_the_batchtopk_of_a_config_without_the_keys():
    raw = OmegaConf.to_container(OmegaConf.load(CONF / "arch/batchtopk.yaml"))
    assert raw["frequency_limit"] is None and not {"frequency_limit", "handicap_step"} & renewed({"arch": raw})["arch"].keys()
    sae = identity()
    assert sae.handicap is None and not [key for key in sae.state_dict() if "handicap" in key]
    assert sae.exported()["threshold"].shape == (3,)
