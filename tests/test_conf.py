"""conf/ and sweeps/: every file, and every job of every sweep, composes and passes the checks."""
import inspect
import pickle
from collections import Counter
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf

from saesweep import old_names
from saesweep.arch.base import SparseAutoencoder
from saesweep.config.check import check
from saesweep.config.instantiate import NOT_ARGUMENTS, instantiate, locate
from saesweep.config.settings import own_settings
from saesweep.errors import UsageError
from saesweep.sweep import per_arch, swept
from saesweep.sweep.composed import MERGE, MODE, LoadedOnce, MergedOnce
from saesweep.sweep.jobs import job_of

ROOT = Path(__file__).parents[1]
GROUPS = ("model", "site", "text", "cache", "arch", "trainer", "logger", "study", "explainer")
FILES = [path for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def conf_folder():
    """Initialised once, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAESWEEP_ROOT", str(ROOT))
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            yield


def composed(*words):
    return compose("train", list(words), return_hydra_config=True)


def named(path):
    return f"{path.parent.name}-{path.stem}"


def chosen(path):
    """The overrides that choose a file, and those that the file needs."""
    words = [f"{path.parent.name}={path.stem}"]
    more = {"files": "text.glob=*.txt", "explainer": "study=rules", "activations": "model.source.activations.folder=acts"}
    return [*words, *(more[name] for name in (path.stem, path.parent.name) if name in more)]


def points(sweep, *typed):
    """The overrides of each job, as Hydra's sweeper makes them of the file and of the command line."""
    params = composed(f"sweeps={sweep}").hydra.sweeper.params
    words = [*(f"{key}={value}" for key, value in params.items()), *typed]
    overrides = OverridesParser.create().parse_overrides(words)
    (batch,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return batch


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_of_a_group_composes_passes_and_has_its_name_as_name(path):
    cfg = job_of(composed(*chosen(path)), single=True).settings
    node = cfg[path.parent.name]
    if path.parent.name == "logger":
        node = node[path.stem]
        if find_spec(needed := node.get("needs", "saesweep")) is None:
            pytest.skip(f"{needed} is not installed")
    assert check(cfg) is None
    assert node.get("name") == path.stem or "lightning" in node["_target_"]  # there, `name` is an argument


@pytest.mark.slow
def test_every_model_passes_at_each_of_its_sites_and_at_its_last_layer():
    for path in (ROOT / "conf/model").glob("*.yaml"):
        model = OmegaConf.load(path)
        for site in model.sites:
            words = [*chosen(path), f"site={site}", f"layer={model.layers - 1}"]
            cfg = job_of(composed(*words), single=True).settings
            assert check(cfg) is None
            assert "{" not in cfg["site"]["hook_name"].format(layer=cfg["layer"])
            assert "{" not in cfg["model"]["sites"][site]["module"].format(layer=cfg["layer"])


@pytest.mark.parametrize("arch", sorted(path.stem for path in (ROOT / "conf/arch").glob("*.yaml")))
def test_every_architecture_is_built_from_its_file_whose_keys_are_its_arguments(arch):
    node = OmegaConf.to_container(composed(f"arch={arch}").arch)
    parameters = inspect.signature(locate(node["_target_"])).parameters
    assert set(node) - {"_target_", *NOT_ARGUMENTS} == set(parameters) - {"self", "d_in", "d_sae", "sparsity"}
    later = old_names.LATER  # numbers are in YAML only, but those that a config of an older version does not have
    assert all(p.default == later.get(f"arch.{name}", p.empty) for name, p in parameters.items())
    with torch.device("meta"):
        sae = instantiate(node, leave=NOT_ARGUMENTS, d_in=8, d_sae=32, sparsity=4)
    assert isinstance(sae, SparseAutoencoder) and sae.W_dec.shape == (32, 8) and sae.sparsity == 4
    without = ("topk", "paper_topk", "hierarchical_topk", "batchtopk", "batchtopk_limited", "matryoshka", "paper_gemma_scope_2")
    assert (node["control"] is None) == (node["name"] in without)


def jobs(sweep, all_words):
    """Composes each combination of files once, and sets the values, as Hydra does last, and by which keys folders are named."""
    bases, loader = {}, GlobalHydra.instance().config_loader()
    params = composed(f"sweeps={sweep}").hydra.sweeper.params
    overrides = OverridesParser.create(loader).parse_overrides([f"{key}={value}" for key, value in params.items()])
    named_by = swept.names(overrides, "nowhere", loader.get_group_options("arch"))
    for words in all_words:
        choices = tuple(word for word in words if word.split("=")[0] in GROUPS)
        if choices not in bases:
            bases[choices] = pickle.dumps(composed(f"sweeps={sweep}", *choices))
        cfg = pickle.loads(bases[choices])
        for override in OverridesParser.create().parse_overrides([word for word in words if word not in choices]):
            OmegaConf.update(cfg, override.key_or_group, override.value())
        OmegaConf.update(cfg, "hydra.callbacks.refuse.swept", named_by)
        yield job_of(cfg, single=False)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_job_of_a_sweep_passes_and_has_its_own_folder(sweep):
    all_words, folders = points(sweep), Counter()
    for words, job in zip(all_words, jobs(sweep, all_words), strict=True):
        assert check(job.settings) is None, words
        assert job.settings["name"].split("_")[0] == {"quickstart": "default"}.get(sweep, sweep).split("_")[0]
        folders[job.folder] += 1
    assert job.composed.hydra.mode.name == "MULTIRUN" and len(folders) > 1 and max(folders.values()) == 1
    assert job.settings == job_of(composed(f"sweeps={sweep}", *words), single=False).settings


@pytest.mark.parametrize("sweep", SWEEPS)
def test_the_header_of_a_sweep_has_command_cost_expectation_and_result(sweep):
    header = [line for line in (ROOT / f"sweeps/{sweep}.yaml").read_text().splitlines() if line.startswith("#")]
    assert header[0] == "# @package _global_"
    for word in (f"python train.py sweeps={sweep}", "# Cost", "# Expected", "# RESULT: "):
        assert any(word in line for line in header), word


def test_the_quickstart_sweep_is_the_command_of_the_readme():
    typed = [["arch=jumprelu", "arch=gated", "arch=topk"], ["sparsity=16", "sparsity=32", "sparsity=64"]]
    assert [tuple(words) for words in points("quickstart")] == list(product(*typed))
    plain, swept = ({k: v for k, v in composed(*w).items() if k != "hydra"} for w in ([], ["sweeps=quickstart"]))
    assert plain == swept


def test_the_config_of_a_sweep_is_composed_once_and_as_hydra_composes_it():
    loader, seen = GlobalHydra.instance().config_loader(), []
    once = LoadedOnce(lambda *words: seen.append(words) or per_arch.load(*words))
    words = ["arch=topk,jumprelu", "jumprelu.warm_start=0", "sparsity=3"]
    once.of(loader, "train", words, RunMode.MULTIRUN, True, False)
    found = once.of(loader, "train", [*words, MODE], RunMode.MULTIRUN)
    assert len(seen) == 1 and OmegaConf.to_container(found) == OmegaConf.to_container(
        per_arch.load(loader, "train", [*words, MODE], RunMode.MULTIRUN))
    once.of(loader, "train", words, RunMode.MULTIRUN, True, False)
    assert once.of(loader, "train", [*words, "seed=7", MODE], RunMode.MULTIRUN).seed == 7  # of other words
    once.of(loader, "train", ["hydra.verbose=true,false"], RunMode.MULTIRUN, True, False)
    with pytest.raises(ConfigCompositionException, match="Sweeping over Hydra's configuration is not supported"):
        once.of(loader, "train", ["hydra.verbose=true,false", MODE], RunMode.MULTIRUN)


def test_files_are_merged_once_and_as_hydra_merges_them(monkeypatch):
    merged, hydras, name = [], inspect.unwrap(MERGE), "_compose_config_from_defaults_list"
    monkeypatch.setattr(ConfigLoaderImpl, name, MergedOnce(lambda *words: merged.append(words) or hydras(*words)))
    sweep = [*product(("arch=topk", "arch=jumprelu"), ("sparsity=4", "sparsity=8"), ("+arch.new=3",))]
    found = [composed(*words) for words in sweep]
    monkeypatch.setattr(ConfigLoaderImpl, name, hydras)
    wanted = [composed(*words) for words in sweep]
    assert len(merged) == 2 and list(map(described, found)) == list(map(described, wanted))


def described(node):
    """All that a config is: values, types, and whether it can be changed or extended."""
    content = node._content if OmegaConf.is_config(node) else node._val
    if isinstance(content, dict):
        content = {key: described(value) for key, value in content.items()}
    elif isinstance(content, list):
        content = [described(value) for value in content]
    about = {key: value for key, value in vars(node._metadata).items() if key != "resolver_cache"}  # of times
    return type(node), about, content


def test_overrides_narrow_a_sweep():
    assert len(points("sites")) == 27
    narrowed = points("sites", "layer=9", "arch=topk,gated", "sparsity=64")
    sites, archs = ("site=resid", "site=mlp", "site=attn"), ("arch=topk", "arch=gated")
    assert [tuple(words) for words in narrowed] == list(product(sites, ["layer=9"], archs, ["sparsity=64"]))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_key_occurs_twice_in_a_file(path):
    """YAML takes the last of two equal keys without a warning."""
    keys = Counter()

    def walk(node, above=()):
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                keys[(*above, key.value)] += 1
                walk(value, (*above, key.value))

    walk(yaml.compose(path.read_text()))
    assert [key for key, count in keys.items() if count > 1] == []


@pytest.mark.parametrize(
    "word",
    [
        "model.layer_=3", "site.hook_nam=x", "text.held_outt=0.1", "arch.optimizer.lrr=1", "trainer.device=1",
        "logger.wandb.projct=x", "study.nam=rules", "explainer.nam=none", "activations.centre=true", "evaluation.token=1",
        "tokns=1",
    ],
)
def test_a_mistyped_key_of_each_group_is_refused(word):
    with pytest.raises(ConfigCompositionException, match=f"Could not override '{word.split('=')[0]}'"):
        composed(word)


@pytest.mark.parametrize(
    "word, part",
    [
        ("+arch.optimizer.lrr=1", "did you mean lr?"),
        ("+arch.bandwith=1", "did you mean bandwidth?"),
        ("+trainer.precison=32-true", "did you mean precision?"),
        ("+model.sites.resid.tensr=input", "did you mean tensor?"),
        ("+activations.centre=true", "did you mean center?"),
    ],
)
def test_an_added_key_must_be_known(word, part):
    with pytest.raises(UsageError, match=part.replace("?", r"\?")):
        check(job_of(composed(word), single=True).settings)


def test_a_config_of_before_the_study_is_valid_and_of_the_same_sae():
    now = job_of(composed("study=rules", "study.features=7", "explainer=rules"), single=True).settings
    before = {key: value for key, value in now.items() if key not in ("study", "explainer")}
    assert check(now) is None and check(before) is None and own_settings(now) == own_settings(before)
    assert now["study"]["features"] == 7 and now["study"]["tokens"] == 300_000


def test_an_explainer_needs_a_study():
    with pytest.raises(UsageError, match=r"^explainer=rules: explains the latents of a study; write study=rules too$"):
        check(job_of(composed("explainer=rules"), single=True).settings)


@pytest.mark.parametrize(
    "word", ["model=gemma", "site=residual", "text=pyle", "arch=jumpreluu", "trainer=tpu", "sweeps=site", "study=rule",
             "explainer=opnai"]
)
def test_a_mistyped_choice_of_each_group_is_refused(word):
    with pytest.raises(MissingConfigException, match=f"Could not find '{word.replace('=', '/')}'"):
        composed(word)
