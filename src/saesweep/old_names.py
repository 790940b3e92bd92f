"""The table of modules that have moved: old configs, commands and notebooks keep working.

`import saesweep.models`, `python -m saesweep.pareto` and `_target_: saesweep.strategies.PerRank` find the module where it is
now. Where a package has taken the name of a module (saesweep.training), its attributes are looked up in that module.
"""
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any, cast

MOVED = {
    "activations": "data.stream", "cache": "data.disk_cache", "enough": "data.text_length", "overlap": "data.overlap",
    "read_ahead": "data.prefetch", "readers": "data.corpora", "reading": "data.harvest", "statistics": "data.normalisation",
    "synthetic": "data.synthetic", "text": "data.text", "text_files": "data.text_files",
    "converted": "lm.gguf", "hub": "lm.hub", "model_checks": "lm.checks", "models": "lm.models", "sites": "lm.hooks",
    "instantiate": "config.instantiate", "keys": "config.schema", "ranges": "config.ranges", "sweep.check": "config.check",
    "files": "storage.files", "outputs": "storage.sweep_table", "saelens": "storage.sae_format", "saves": "storage.checkpoints",
    "logging": "loggers.sweep_logger", "members": "loggers.identity", "per_sae": "loggers.lightning_logger",
    "wandb_runs": "loggers.wandb_runs",
    "evaluation": "evaluation.evaluate", "metrics": "evaluation.metrics",
    "build": "training.build", "calibration": "training.calibration", "optimizer": "training.optimizer",
    "running_sums": "training.running_sums", "sparsity": "training.l0_controller", "strategies": "training.strategies",
    "sweep.fit": "training.fit", "training": "training.module",
    "compare": "report.compare", "curves": "report.style", "dashboard": "report.dashboard", "figures": "report.figures",
    "intervals": "report.intervals", "jackknife": "report.jackknife", "matching": "report.matching",
    "measured_curve": "report.measured_curve", "page": "report.page", "pareto": "report.pareto", "verdicts": "report.verdicts",
    "wording": "report.wording", "page.better": "report.page.verdict_tables", "page.words": "report.page.tables",
    "digests": "runtime.digests", "distributed": "runtime.distributed", "draws": "runtime.rng", "memory": "runtime.memory",
    "progress": "runtime.console", "screen": "runtime.console", "signals": "runtime.signals", "spinning": "runtime.threads",
    "timing": "data.forward_size", "runtime.timing": "data.forward_size", "config.arguments": "config.walk",
    "sweep.origin": "training.origin", "sweep.resources": "data.resources",
    "sweep.before": "sweep.preflight", "sweep.engines": "sweep.engines.base", "sweep.join": "sweep.engines.join",
    "sweep.on_ray": "sweep.engines.ray", "sweep.precompile": "sweep.compilation", "sweep.ranks": "sweep.engines.worker",
    "sweep.record": "sweep.job_record", "sweep.refusals": "sweep.hydra_errors", "sweep.run": "sweep.group",
    "sweep.single": "sweep.single_job", "sweep.slurm": "sweep.engines.slurm", "sweep.summary": "sweep.wandb_summary",
    "sweep.traces": "sweep.rollback", "sweep.view": "sweep.live_table",
    "notebook": "api", "evaluate": "imported.__main__",
}
NEW = {f"saesweep.{old}": f"saesweep.{new}" for old, new in MOVED.items()}


class Finder:
    """The last finder, so that no other import is slower."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in NEW or (spec := find_spec(NEW[name])) is None:
            return None
        return ModuleSpec(name, cast(Any, Moved(spec)), origin=spec.origin)


class Moved:
    """The old name's module is the new name's."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return import_module(self.spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # Python has set that of the old name

    def get_code(self, fullname: str) -> CodeType | None:
        loader: Any = self.spec.loader
        return loader.get_code(self.spec.name)  # for python -m


def install() -> None:
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())


def attributes(package: str) -> Callable[[str], Any]:
    """`__getattr__` of a package that has the name of a module of before."""

    def find(name: str) -> Any:
        if name.startswith("_") or find_spec(f"{package}.{name}"):  # a module in the package is imported as ever
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(NEW[package]), name)

    return find


# Keys that came later, with the value that says what was done before they came.
LATER = {
    "activations.passes": 1, "evaluation.lm_blocks": None, "model.source.synthetic.parents": 0.0,
    "arch.frequency_scale": None, "arch.frequency_limit": None, "arch.handicap_step": 0.01,
    "arch.optimizer.clip_by_previous": False, "init_from": None, "skip": False, "cuda_graphs": False,
}


def renewed(node: Any, path: str = "") -> Any:
    """A config in which every `_target_` has its name of today, without the keys of LATER that change nothing, so that two
    ways to write one thing are equal. path: of the node, with a dot at its end."""
    if isinstance(node, Mapping):
        found = {key: current(value) if key == "_target_" else renewed(value, f"{path}{key}.") for key, value in node.items()}
        return {key: value for key, value in found.items() if not _as_before(f"{path}{key}", value)}
    return [renewed(value, path) for value in node] if isinstance(node, list) else node


def _as_before(key: str, value: Any) -> bool:
    return key in LATER and value is not True and value == LATER[key]  # True == 1


def current(target: Any) -> Any:
    """The dotted path of today of a class or function."""
    module, _, name = str(target).rpartition(".")
    return f"{NEW[module]}.{name}" if module in NEW else target
