"""The checks of the config refuse a user's mistake before anything is loaded, with key, value and fix."""
import inspect
from dataclasses import fields
from pathlib import Path

import lightning
import pytest
import yaml
from omegaconf import OmegaConf
from standin.cli import ROOT, composed

from saesweep.config.check import TRAINER, check
from saesweep.config.instantiate import instantiate, locate
from saesweep.config.schema import MAY_DIFFER_IN_A_FIGURE, MAY_DIFFER_IN_A_GROUP, NOT_THE_SAES, Activations, Evaluation, Train
from saesweep.errors import UsageError
from saesweep.storage import files
from saesweep.sweep.jobs import groups, job_of


def settings(*words, **always):
    return job_of(composed(*words, whole=True, **always), single=True).settings


def refused(*words):
    with pytest.raises(UsageError) as error:
        check(settings("arch=flat", *words))
    return str(error.value)


def test_the_default_config_with_the_standins_passes():
    assert check(settings("arch=flat")) is None
    assert check(settings("arch=round", "site=mlp", "layer=0", "seed=3")) is None


@pytest.mark.parametrize(
    "word, parts",
    [
        ("tokens='5000'", ["tokens=5000: must be a whole number, and in quotes it is a text; write tokens=5000"]),
        ("plan='true'", ["plan=true: must be true or false, and in quotes it is a text; write plan=true"]),
        ("tokens=1e400", ["tokens=inf: must be a finite number"]),
        ("seed=99999999999999999999", ["seed=99999999999999999999: must be below 2**63"]),
        ("stream_seed=1e19", ["stream_seed=10000000000000000000: must be below 2**63"]),
        ("~evaluation.tokens", ["evaluation.tokens: is missing; add it to conf/train.yaml"]),
        ("model=gpt2 model.source.hub=", ["model.source.hub=: must be a text that is not empty"]),
        ("cache=disk cache.folder=", ["cache.folder=: must be a text that is not empty"]),
        ("sparsity=0.001", ["sparsity=0.001", "arch.coefficient=6e-4"]),
        ("sparsity=0", ["sparsity=0", "arch.coefficient="]),
        ("sparsity=-4", ["sparsity=-4"]),
        ("sparsity=12.5", ["sparsity=12.5", "whole number"]),
        ("sparsity=many", ["sparsity=many", "number"]),
        ("sparsity=5000", ["sparsity=5000", "width=4096"]),
        ("tokens=abc", ["tokens=abc", "whole number"]),
        ("tokens=1.5e0", ["tokens=1.5", "whole number"]),
        ("tokens=300k", ["tokens=300k", "such as tokens=300e3"]),
        ("tokens=inf", ["tokens=inf", "whole number"]),
        ("sparsity=[16,32]", ["sparsity=[16, 32]", "write sparsity=16,32 with -m"]),
        ("sparsity=nan", ["sparsity=nan", "finite"]),
        ("arch.optimizer.lr=nan", ["arch.optimizer.lr=nan", "finite"]),
        ("activations.max_norm=inf", ["activations.max_norm=inf", "finite"]),
        ("tokens=1e400", ["tokens=inf", "whole number"]),
        ("activations.statistics=1", ["activations.statistics=1", "at least 2"]),
        ("tokens=null", ["tokens=null", "whole number"]),
        ("tokens=0", ["tokens=0", "at least 1"]),
        ("tokens=-300", ["tokens=-300", "at least 1"]),
        ("activations.statistics=2000000", ["activations.statistics=2000000", "activations.window="]),
        ("tokens=true", ["tokens=true", "whole number"]),
        ("tokens=100", ["batch_tokens=512", "tokens=100"]),
        ("batch_tokens=0", ["batch_tokens=0"]),
        ("context=1", ["context=1", "at least 2"]),
        ("width=0", ["width=0"]),
        ("seed=-1", ["seed=-1", "at least 0"]),
        ("stream_seed=x", ["stream_seed=x"]),
        ("overwrite=maybe", ["overwrite=maybe", "true or false"]),
        ("layer=3", ["layer=3", "standin", "0 to 2"]),
        ("layer=-1", ["layer=-1"]),
        ("site=attn", ["site=attn", "standin", "resid, mlp"]),
        ("name=../x", ["name=../x", "outputs/"]),
        ("name=/tmp/x", ["name=/tmp/x"]),
        ("name=.hidden", ["name=.hidden"]),
        ("arch.name=a/b", ["arch.name=a/b"]),
        ("activations.max_norm=0", ["activations.max_norm=0", "above 0"]),
        ("activations.window=many", ["activations.window=many"]),
        ("activations.forward_tokens=0", ["activations.forward_tokens=0", "at least 1, or auto"]),
        ("activations.forward_tokens=all", ["activations.forward_tokens=all", "at least 1, or auto"]),
        ("cache=disk activations.forward_tokens=auto", ["activations.forward_tokens=auto", "cache=disk", "write a number"]),
        ("activations.center=1", ["activations.center=1", "true or false"]),
        ("read_ahead=true", ["read_ahead=true", "trainer=gpu"]),
        ("evaluation.lm_tokens=100000", ["evaluation.lm_tokens=100000", "evaluation.tokens=16384"]),
        ("arch.coefficient=0", ["arch.coefficient=0", "above 0"]),
        ("arch.optimizer=adam", ["arch.optimizer=adam"]),
        ("arch.optimizer.lr=0", ["arch.optimizer.lr=0", "above 0"]),
        ("arch.control.freeze=2", ["arch.control.freeze=2", "at most 1"]),
        ("+arch.optimizer.momentum=0.9", ["there is no key arch.optimizer.momentum"]),
        ("arch._target_=os.system", ["arch._target_=os.system", "saesweep"]),
        ("arch._target_=saesweep.arch.gated.Gate", ["arch._target_=saesweep.arch.gated.Gate"]),
        ("trainer.devices=2", ["trainer.devices=2", "trainer=ddp trainer.devices=2"]),
        ("trainer.devices=0", ["trainer.devices=0", "at least 1"]),
        ("+trainer.num_nodes=2", ["trainer=ddp"]),
        ("trainer.devices=auto", ["trainer.devices=auto"]),
        ("trainer.devices=[1]", ["trainer.devices=[1]", "whole number"]),
        ("trainer.accelerator=auto", ["trainer.accelerator=auto", "cpu or gpu"]),
        ("trainer.precision=bf16-true", ["trainer.precision=bf16-true", "32-true or bf16-mixed"]),  # thresholds need fp32
        ("arch.optimizer.betas=0.9", ["arch.optimizer.betas=0.9", "[0.9,0.999]"]),
        ("arch.optimizer.betas=[0.9]", ["arch.optimizer.betas=[0.9]", "[0.9,0.999]"]),
        ("arch.optimizer.betas=[0.9,1.0]", ["arch.optimizer.betas=[0.9, 1.0]", "below 1"]),
        ("model.dtype=fp16", ["model.dtype=fp16", "float16"]),
        ("~model.bos", ["model.bos: is missing", "conf/model/*.yaml"]),
        ("+model.typo=1", ["there is no key model.typo"]),
        ("+model.source.hub=gpt2", ["model.source=", "one of hub, package, random, synthetic"]),
        ("+site.typo=1", ["there is no key site.typo"]),
        ("text.kind=foo", ["text.kind=foo", "stdlib or files or hub"]),
        ("+model.source.typo=1", ["there is no key model.source.typo"]),
        ("model.source.random=null", ["model.source=", "one of hub, package, random, synthetic"]),
        ("+trainer.num_nodes=2", ["trainer.num_nodes=2"]),
        ("+trainer.max_steps=10", ["trainer.max_steps=10", "use tokens"]),
        ("+trainer.precison=bf16", ["trainer.precison=bf16", "did you mean precision?"]),
        ("+arch.alfa=1", ["arch.alfa=1", "there is no key arch.alfa"]),
        ("+sparsty=3", ["sparsty=3", "did you mean sparsity?"]),
        ("+activations.centre=true", ["activations.centre=true", "did you mean center?"]),
        ("width=${nothing}", ["width", "nothing"]),
        ("model.sites.resid.tensor=middle", ["model.sites.resid.tensor=middle", "input or output"]),
        ("model.sites.mlp.tensor=middle", ["model.sites.mlp.tensor=middle", "input or output"]),  # a site that is not used
        ("model.sites=3", ["model.sites=3: must be a group of keys"]),
        ("~model.layers", ["model.layers", "missing"]),
        ("width=???", ["width"]),
    ],
)
def test_a_mistake_is_refused_with_key_value_and_fix(word, parts):
    message = refused(*word.split())
    assert all(part in message for part in parts), message


def test_a_list_is_taken_for_a_sweep_only_if_the_value_is_a_number():
    assert "-m" in refused("arch.optimizer.lr=[1e-3,2e-3]")
    assert "-m" not in refused("arch.optimizer.betas=[0.9]")


@pytest.mark.parametrize(
    "word, part",
    [
        ("text.held_out=abc", "text.held_out=abc: must be a number"),
        ("+text.typo=1", "there is no key text.typo"),
        ("~text.repeat", "text.repeat: is missing; add it to conf/text/*.yaml"),
        ("model=gpt2 ~model.source.revision", "model.source.revision: is missing; add it to conf/model/*.yaml"),
        ("model=synthetic model.source.synthetic.l0=0", "model.source.synthetic.l0=0: must be above 0"),
    ],
)
def test_the_keys_of_texts_and_models_depend_on_their_kind(word, part):
    with pytest.raises(UsageError) as error:
        check(settings("text=files", *word.split(), always=("logger=csv",)))
    assert part in str(error.value)


def test_arguments_of_an_architecture_have_the_types_of_its_constructor():
    with pytest.raises(UsageError, match=r"arch\.k_aux=lots: must be a whole number"):
        check(settings("arch=round", "arch.k_aux=lots"))
    with pytest.raises(UsageError, match=r"arch\.k_aux: is missing"):
        check(settings("arch=round", "~arch.k_aux"))


@pytest.mark.parametrize(
    "arch, word, parts",
    [
        ("jumprelu", "arch.bandwidth=0", ["arch.bandwidth=0", "above 0"]),
        ("jumprelu", "arch.warm_start=3", ["arch.warm_start=3", "at most 1"]),
        ("topk", "arch.k_aux=-1", ["arch.k_aux=-1", "at least 1"]),
        ("batchtopk", "arch.alpha=-0.5", ["arch.alpha=-0.5", "at least 0"]),
        ("topk", "arch.coefficient=0.1", ["arch.coefficient=0.1", "topk has none"]),
        ("batchtopk", "arch.coefficient=0.1", ["arch.coefficient=0.1", "batchtopk has none"]),
        ("topk", "list_room=true", ["list_room=true", "trainer=gpu"]),
        ("topk", "cuda_graphs=true", ["cuda_graphs=true", "trainer=gpu"]),
    ],
)
def test_numbers_of_an_architecture_are_in_the_ranges_of_its_constructor(arch, word, parts):
    with pytest.raises(UsageError) as error:
        check(settings(f"arch={arch}", word))
    assert all(part in str(error.value) for part in parts), error.value


def test_cuda_graphs_are_for_a_training_in_fp32():
    words = ("arch=topk", "trainer=gpu", "cuda_graphs=true")
    check(settings(*words))
    with pytest.raises(UsageError, match=r"^cuda_graphs=true: .*trainer\.precision=64-true"):
        check(settings(*words, "trainer.precision=64-true"))


def test_the_known_trainer_keys_are_arguments_of_lightnings_trainer():
    assert set(inspect.signature(lightning.Trainer).parameters) >= TRAINER


def test_the_checks_of_a_config_do_not_import_lightning(found_fresh):
    """The plan does, as it counts what a training has in memory."""
    assert found_fresh["lightning after the checks"] is False


@pytest.mark.parametrize(
    "word",
    ["activations.max_norm=null", "arch.coefficient=6e-4", "trainer.precision=bf16-mixed", f"evaluation.dead_after={2**62}",
     f"activations.max_norm={10**400}"],
)
def test_allowed_values_pass(word):
    assert check(settings("arch=flat", word)) is None


def test_whole_numbers_written_as_floats_become_ints():
    words = ("tokens=1e6", "sparsity=32.0", "seed=2.0", "layer=1.0", "arch.control.memory=1e2")
    job = job_of(composed("arch=flat", *words, "activations.forward_tokens=2e3", whole=True), single=True)
    check(job.settings)
    found = [value for _, value in files.flat(job.settings) if value in (1_000_000, 32, 100, 2000)]
    assert len(found) >= 4 and all(type(value) is int for value in found)
    assert job.folder.parts[-3:] == ("resid.1", "flat", "32.2")


def test_one_number_written_in_two_ways_gives_equal_settings_and_one_group():
    jobs = [job_of(composed("arch=flat", word, whole=True), single=True) for word in ("tokens=1e6", "tokens=1_000_000")]
    for job in jobs:
        check(job.settings)
    assert jobs[0].settings == jobs[1].settings and len(groups(jobs)) == 1


def test_lm_tokens_are_not_checked_without_a_language_model():
    words = ("model=synthetic", "evaluation.tokens=1000")
    assert check(settings("arch=flat", *words, always=("text=standin", "logger=csv"))) is None


def test_a_hub_may_replace_a_package_and_no_other_source():
    word = "model.source.hub=HuggingFaceTB/SmolLM2-135M"
    assert check(settings("model=smollm2_135m", word, always=("logger=csv",))) is None
    assert "one of hub" in refused(f"+{word}")


def test_a_sweep_without_loggers_passes():
    assert check(settings("arch=flat", "logger=[]", always=("model=standin", "text=standin"))) is None


def test_the_checked_keys_are_those_of_train_yaml():
    config = yaml.safe_load((ROOT / "conf/train.yaml").read_text())
    groups = {"model", "site", "text", "cache", "arch", "trainer", "logger", "study", "explainer", "objective"}  # a sweeper's
    assert Train.__dataclass_fields__.keys() == (config.keys() - {"defaults", "hydra"}) | groups
    assert Activations.__dataclass_fields__.keys() == config["activations"].keys()
    assert Evaluation.__dataclass_fields__.keys() == config["evaluation"].keys()


@pytest.mark.parametrize("file", [file for group in ("site", "trainer", "cache") for file in (ROOT / "conf" / group).iterdir()])
def test_a_file_of_a_group_has_its_name_as_name(file: Path):
    assert OmegaConf.load(file).name == file.stem


def test_targets_outside_the_allowed_packages_need_SAESWEEP_PACKAGES(monkeypatch):
    with pytest.raises(UsageError, match="SAESWEEP_PACKAGES"):
        locate("json.dumps")
    monkeypatch.setenv("SAESWEEP_PACKAGES", "json,other")
    assert locate("json.dumps")([1]) == "[1]"


def test_instantiate_calls_the_target_with_the_other_keys():
    linear = instantiate({"_target_": "torch.nn.Linear", "name": "mine", "in_features": 3}, out_features=2)
    assert linear.weight.shape == (2, 3)
    with pytest.raises(UsageError, match=r"a\.0\._target_=subprocess\.run"):
        instantiate({"_target_": "torch.nn.Linear", "a": [{"_target_": "subprocess.run"}]})


def test_instantiate_passes_objects_on_without_copying():
    module, others = object(), [object()]
    found = instantiate({"_target_": "torch.utils.data.Subset"}, dataset=module, indices=others)
    assert found.dataset is module and found.indices is others


def test_every_key_is_classified():
    """A new key is shared by a group and a figure, and determines the SAE, unless one of the lists contains it."""
    keys = [field.name for field in fields(Train)]
    assert {*MAY_DIFFER_IN_A_GROUP, *MAY_DIFFER_IN_A_FIGURE, *NOT_THE_SAES} <= {*keys}
    assert [key for key in keys if key not in (*MAY_DIFFER_IN_A_GROUP, *NOT_THE_SAES)] == [
        "stream_seed", "tokens", "batch_tokens", "context", "activations", "evaluation", "model", "text", "cuda_graphs",
        "init_from",
    ]
