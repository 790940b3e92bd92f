"""The W&B run of one SAE: its curve, its config, and its final metrics as the run's summary."""
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saesweep.loggers.identity import MemberInfo
from saesweep.loggers.resume_mark import ResumeMark
from saesweep.loggers.wandb_runs import open_run

if TYPE_CHECKING:
    import wandb

# The metrics of eval.json by which SAEs are filtered and compared: at most 25 with those of the curve.
FINAL = ("l0", "fvu", "delta_loss", "loss_recovered", "mse", "cosine", "relative_reconstruction_bias", "dead",
         "frequency_over_1pct", "frequency_over_10pct", "firings_over_10pct", "frequency_max", "frequency_of_firings",
         "coefficient")
WITHOUT_LM = ("recovery", "parent_silent_with_child", "parent_silent_alone",
              *(key for key in FINAL if key not in ("delta_loss", "loss_recovered")))  # on model=synthetic


class SaeRun:
    """The W&B run of one SAE."""

    def __init__(self, chosen: Mapping, member: MemberInfo) -> None:
        self._chosen, self._member = chosen, member
        self._mark = ResumeMark(member.folder / "wandb" / "logged.json")
        self._run = open_run(chosen, member.folder, **about(member))
        self._run.define_metric("tokens", hidden=True)
        self._run.define_metric("train/*", step_metric="tokens")

    def add(self, metrics: Mapping[str, int | float], tokens: int) -> None:
        if tokens > self._mark.tokens:
            self._run.log({"tokens": tokens, **{f"train/{key}": value for key, value in metrics.items()}})
            self._mark.move(tokens)

    def group(self, metrics: Mapping[str, int | float]) -> None:
        self._run.log({f"group/{key}": float(value) for key, value in metrics.items()})

    def close(self, summary: Mapping[str, int | float | None] | None, failed: str | None) -> None:
        self._run.summary.update(final(summary or {}))
        if failed is not None:
            self._run.summary["failed"] = failed
        elif self._chosen["artifacts"]:
            self._run.log_artifact(_artifact(self._member))
        self._run.finish(exit_code=0 if failed is None else 1)


def about(member: MemberInfo) -> dict[str, Any]:
    """What W&B knows of an SAE's run from its start."""
    variant = member.variant.split()
    return {"group": " ".join([member.sweep, *variant]), "job_type": "sae", "config": member.shown(), "id": member.id,
            "name": member.path, "notes": member.command,
            "tags": [member.arch, member.site, f"layer {member.layer}", *(setting[:64] for setting in variant)]}


def final(metrics: Mapping[str, int | float | None]) -> dict[str, int | float | None]:
    """The keys of eval.json that a run's summary has."""
    shown = [key for key in (WITHOUT_LM if "recovery" in metrics else FINAL) if key in metrics]
    return {f"eval/{key}": metrics[key] for key in shown}


def _artifact(member: MemberInfo) -> "wandb.Artifact":
    import wandb

    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{member.sweep}-{member.path}")
    artifact = wandb.Artifact(name[:128], type="sae", description=member.command)
    artifact.add_dir(str(member.folder / "sae"), policy="immutable")  # no copy of the weights in W&B's cache
    return artifact
