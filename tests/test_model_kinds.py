"""Models of other classes than in conf/model: they run if the sites fit, and are refused in one line otherwise."""

from pathlib import Path

import model_folders
import pytest
import torch
import transformers
from model_folders import LLAMA, TOKENS, byte_tokenizer, change, conf, llama
from small import job

from saesweep.errors import UsageError
from saesweep.lm.hooks import hook_point, read
from saesweep.lm.models import load, require_modules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folders.write(tmp_path / "model", "llama", **LLAMA)


def test_the_text_model_of_a_vision_model_is_read_by_its_module_paths(tmp_path: Path) -> None:
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "vocab_size": TOKENS + 5, "sliding_window": 8, "initializer_range": 0.2}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
              "patch_size": 14}
    torch.manual_seed(0)
    whole = transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=TOKENS + 1,
        boi_token_index=TOKENS + 2, eoi_token_index=TOKENS + 3,
    )).eval()
    whole.save_pretrained(tmp_path)
    model_folders.write_tokenizer(tmp_path, byte_tokenizer())
    model, tokens = conf("gemma3_270m", tmp_path), torch.arange(2, 26)[None]
    module = load(model).module
    for refuse in (lambda point: read(module, [point], tokens), lambda point: require_modules(model, [point])):
        with pytest.raises(UsageError, match=r"no module 'model\.layers\.1'; the nearest are .*\.language_model\.layers\.\{"):
            refuse(hook_point(model, "resid", 1))
    model["sites"]["resid"]["module"] = "model.language_model.layers.{layer}"
    point = hook_point(model, "resid", 1)
    with torch.no_grad():
        expected = whole(input_ids=tokens, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(read(module, [point], tokens)[point], expected)


MAMBA = {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 3, "pad_token_id": 1}


def test_sites_of_another_class_are_refused_with_the_existing_modules(tmp_path: Path) -> None:
    model_folders.write(tmp_path, "mamba", **MAMBA)
    model, tokens = llama(tmp_path), torch.arange(2, 12)[None]
    module = load(model).module
    with pytest.raises(UsageError, match=r"model\.sites: MambaForCausalLM has no module .*; the nearest are ") as refused:
        read(module, [hook_point(model, "resid", 1)], tokens)
    nearest = str(refused.value).partition("nearest are ")[2].partition(";")[0].split(", ")
    assert nearest[0] == "backbone.layers.{layer}" and len(nearest) == len({*nearest}) == 5
    model["sites"]["resid"]["module"] = "backbone.layers.{layer}"
    point = hook_point(model, "resid", 1)
    assert read(module, [point], tokens)[point].shape == (1, 10, 32)


@pytest.mark.parametrize("module", ["model.layers.{layer}.self_attn", "lm_head.{layer}"])
def test_a_module_without_an_input_tensor_is_refused(folder: Path, module: str) -> None:
    model = llama(folder, sites={"resid": {"module": module, "tensor": "input"}})
    with pytest.raises(UsageError, match=r"model\.sites: .*(self_attn|lm_head)"):
        read(load(model).module, [hook_point(model, "resid", 1)], torch.arange(2, 12)[None])


def test_a_site_with_another_placeholder_than_layer_is_refused(folder: Path) -> None:
    model = llama(folder, sites={"resid": {"module": "model.layers.{block}", "tensor": "output"}})
    with pytest.raises(UsageError, match=r"model\.sites\.resid\.module=model\.layers\.\{block\}: only \{layer\} may"):
        hook_point(model, "resid", 1)


@pytest.mark.parametrize("settings", [
    {"attn_implementation": "flash_attention_2"}, {"return_dict": False}, {"output_hidden_states": True},
    {"output_attentions": True}, {"use_cache": True}, {"torch_dtype": "float16"}, {"dtype": "float16"},
])
def test_settings_of_a_config_for_inference_change_no_activation(folder: Path, settings: dict) -> None:
    point, tokens = hook_point(llama(folder), "resid", 1), torch.arange(2, 26)[None]
    expected = read(load(llama(folder)).module, [point], tokens)[point]
    change(folder, "config.json", **settings)
    module = load(llama(folder)).module
    assert torch.equal(read(module, [point], tokens)[point], expected)
    output = module(input_ids=tokens)
    assert list(output) == ["logits"] and output.logits.dtype == torch.float32


RANDOM = {"seed": 0, "num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 2, "intermediate_size": 64}


def test_a_random_gemma2_loads() -> None:
    module = load(job(None, "model=tiny", "model.source.random.model_type=gemma2", "model.name=g2")["model"]).module
    assert type(module) is transformers.Gemma2ForCausalLM


@pytest.mark.parametrize(("settings", "message"), [
    ({"model_type": "nonsense"}, r"model\.source\.random: .*nonsense"),
    ({"model_type": "t5", "num_layers": 1}, "t5 is not a causal language model"),
    ({"model_type": "llama", "hiden_size": 48}, r"model\.source\.random\.hiden_size=48: .*did you mean hidden_size"),
    ({"model_type": "llama", "hidden_size": "wide"}, r"model\.source\.random: .*hidden_size"),
    ({"model_type": "llama", "hidden_size": 50, "num_attention_heads": 3}, "multiple of the number of attention heads"),
    ({"model_type": "llama", "vocab_size": 300}, "vocab_size"),
    ({"hidden_size": 48}, "model_type"),
    ({"model_type": "gemma3_text", "use_bidirectional_attention": True, "num_key_value_heads": 1}, "not causal"),
])
def test_random_weights_of_another_kind_of_model_are_refused_in_one_line(settings: dict, message: str) -> None:
    sites = {"resid": {"module": "bert.encoder.layer.{layer}", "tensor": "output"}}
    sizes = {} if settings.get("model_type") == "t5" else RANDOM
    model = job(None, "model=tiny")["model"] | {"sites": sites, "source": {"random": sizes | settings}}
    with pytest.raises(UsageError, match=message) as refused:
        load(model)
    assert "\n" not in str(refused.value)


BLOCKS = {"resid": {"module": "encoder.layer.{layer}", "tensor": "output"}}


def random_model(model_type: str, dtype: str, **more: object) -> dict:
    default = transformers.AutoConfig.for_model(model_type)
    sizes = {key: value for key, value in RANDOM.items() if key == "seed" or hasattr(default, key)}
    source = {"random": sizes | {"model_type": model_type} | more}
    return job(None, "model=tiny")["model"] | {"sites": BLOCKS, "source": source, "dtype": dtype}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "camembert", "xlm", "roformer"])
def test_an_encoder_loads_in_every_dtype_without_a_head(model_type: str, dtype: str) -> None:
    lm = load(random_model(model_type, dtype))
    assert not lm.tokenizer.causal and "Masked" not in type(lm.module).__name__ and lm.module.get_output_embeddings() is None


def test_an_encoder_that_ignores_the_mask_is_refused() -> None:
    with pytest.raises(UsageError, match="its tokens depend on masked padding; give an encoder that honours attention_mask"):
        load(random_model("fnet", "float32"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_that_is_not_causal_is_refused_in_every_dtype(dtype: str) -> None:
    with pytest.raises(UsageError, match="it is not causal, tokens see later ones"):
        load(random_model("gemma3_text", dtype, use_bidirectional_attention=True, num_key_value_heads=1))


EXPERTS = {"num_local_experts": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("model_type", "more"), [
    ("bert", {"is_decoder": True}), ("gpt2", {}), ("mamba", {}), ("rwkv", {}), ("mixtral", EXPERTS), ("gpt_oss", EXPERTS),
    ("jamba", {}), ("gemma2", {"num_key_value_heads": 2}),
])
def test_causal_models_of_many_classes_load_in_every_dtype(model_type: str, more: dict, dtype: str) -> None:
    load(random_model(model_type, dtype, **more))
