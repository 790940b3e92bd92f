"""Reading and editing tensors inside a language model with random weights."""

import pytest
import torch
from omegaconf import OmegaConf
from small import CONF, tiny

from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint, blocks_before, edit, hook_point, read, recorded, replayed

MODEL = OmegaConf.to_container(OmegaConf.load(CONF / "model/tiny.yaml"))
SITES = [(site, layer) for site in MODEL["sites"] for layer in range(MODEL["layers"])]
POINTS = [hook_point(MODEL, *site) for site in SITES]
TOKENS = torch.randint(3, 259, (4, 24), generator=torch.Generator().manual_seed(0))
LM = tiny().module


def logits():
    with torch.no_grad():
        return LM(input_ids=TOKENS, use_cache=False).logits


def output_of(path):
    return read(LM, [HookPoint(path, "output")], TOKENS).popitem()[1]


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_splicing_in_the_unmodified_activation_changes_no_logit(point):
    clean, seen = logits(), []

    def copy(x):
        seen.append(x)
        return x.clone()

    with edit(LM, point, copy):
        assert torch.equal(logits(), clean)
    assert len(seen) == 1 and torch.equal(seen[0], read(LM, [point], TOKENS)[point])


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_an_edit_changes_the_logits_until_the_with_block_ends(point):
    clean = logits()
    with edit(LM, point, torch.zeros_like):
        assert not torch.allclose(logits(), clean, atol=1e-3)
    assert torch.equal(logits(), clean)


def test_an_edit_is_undone_if_the_with_block_raises():
    clean = logits()
    with pytest.raises(KeyError), edit(LM, POINTS[0], torch.zeros_like):
        raise KeyError
    assert torch.equal(logits(), clean)


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_replaying_the_blocks_before_a_hook_point_changes_no_logit(point):
    before = blocks_before(LM, point)
    with recorded([before]) as outputs, edit(LM, point, torch.zeros_like):
        wanted = logits()
    counts = {}
    handles = [b.mlp.register_forward_pre_hook(lambda *_, b=b: counts.update({b: 1})) for b in LM.model.layers]
    with replayed(before, outputs), edit(LM, point, torch.zeros_like):
        assert torch.equal(logits(), wanted)
    assert list(counts) == [block for block in LM.model.layers if block not in before]
    for handle in handles:
        handle.remove()
    clean = logits()
    assert list(counts) != [*LM.model.layers] or not before
    assert not torch.equal(clean, wanted)


def test_blocks_before_finds_the_blocks_of_a_stack_only():
    blocks = list(LM.model.layers)
    assert blocks_before(LM, HookPoint("model.layers.1", "output")) == blocks[:2]
    assert blocks_before(LM, HookPoint("model.layers.1", "input")) == blocks[:1]
    assert blocks_before(LM, HookPoint("model.layers.1.self_attn.o_proj", "input")) == blocks[:1]
    assert blocks_before(LM, HookPoint("model.norm", "output")) == []


@pytest.mark.parametrize("layer", range(MODEL["layers"]))
def test_resid_is_the_models_own_hidden_state_after_the_block(layer):
    point = hook_point(MODEL, "resid", layer)
    with torch.no_grad():
        states = LM(input_ids=TOKENS, use_cache=False, output_hidden_states=True).hidden_states
        x = read(LM, [point], TOKENS)[point]
        if layer == MODEL["layers"] - 1:  # the model's own last state has passed the final norm
            assert not torch.allclose(x, states[-1])
            x = LM.model.norm(x)
    assert torch.equal(x, states[layer + 1])


def test_mlp_is_what_the_block_adds_to_the_residual_stream_after_its_post_norm():
    middle, mlp, resid = (
        read(LM, [point], TOKENS)[point]
        for point in (
            HookPoint("model.layers.1.pre_feedforward_layernorm", "input"),
            hook_point(MODEL, "mlp", 1),
            hook_point(MODEL, "resid", 1),
        )
    )
    assert torch.equal(middle + mlp, resid)
    assert not torch.allclose(mlp, output_of("model.layers.1.mlp"), atol=1e-2)


def test_attn_is_the_heads_concatenated_before_the_output_projection():
    point = hook_point(MODEL, "attn", 1)
    x = read(LM, [point], TOKENS)[point]
    random = MODEL["source"]["random"]
    assert x.shape[-1] == random["num_attention_heads"] * random["head_dim"] != random["hidden_size"]
    torch.testing.assert_close(LM.model.layers[1].self_attn.o_proj(x), output_of("model.layers.1.self_attn.o_proj"))


def test_several_hook_points_in_one_pass_equal_each_read_alone():
    together = read(LM, POINTS[::-1], TOKENS)
    assert list(together) == POINTS[::-1]
    for point in POINTS:
        assert torch.equal(together[point], read(LM, [point], TOKENS)[point])


def calls(points):
    counts, handles = {}, []
    for name, module in LM.named_modules():
        count = lambda *_, name=name: counts.update({name: counts.get(name, 0) + 1})  # noqa: E731
        handles.append(module.register_forward_pre_hook(count))
    read(LM, points, TOKENS)
    for handle in handles:
        handle.remove()
    return counts


def test_modules_above_the_last_hook_point_are_not_run_and_those_below_once():
    counts = calls([hook_point(MODEL, "resid", 0), hook_point(MODEL, "mlp", 1)])
    assert counts["model.layers.0.mlp"] == counts["model.layers.1.mlp"] == 1
    assert not {"model.layers.2", "model.norm", "lm_head"} & counts.keys()


def test_modules_after_the_hook_point_in_its_block_are_not_run():
    counts = calls([hook_point(MODEL, "attn", 1)])
    assert counts["model.layers.1.self_attn"] == 1 and "model.layers.1.mlp" not in counts
    assert "model.layers.1.self_attn.o_proj" in counts  # it is called, because its input is read


def test_read_removes_its_hooks_and_needs_no_gradient():
    def hooks():
        return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in LM.modules()]

    before = hooks()
    assert not read(LM, POINTS, TOKENS)[POINTS[0]].requires_grad
    assert hooks() == before


def test_an_unknown_module_is_refused_by_name():
    with pytest.raises(UsageError, match=r"model\.sites.*no module 'model\.layers\.1\.atn'; .*layers\.\{layer\}\.self_attn"):
        read(LM, [HookPoint("model.layers.1.atn", "output")], TOKENS)


def test_an_unknown_site_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"site=heads: tiny has the sites resid, mlp, attn"):
        hook_point(MODEL, "heads", 0)
