"""A saved W&B workspace for a project of sweeps: Pareto plots, matched L0, curves over tokens, latents, throughput.

    saesweep dashboard --entity ENTITY --project PROJECT

needs a login (wandb login) and the extra: pip install -e '.[dashboard]'. It prints the URL of the workspace. Runs have the
colour of their architecture; --update URL colours the runs of later sweeps. --spec FILE writes the workspace as JSON and
--dry-run prints it; neither needs a login or a network.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from saesweep.errors import UsageError, exit_on_usage_error
from saesweep.loggers import wandb_runs
from saesweep.report.style import arch_styles
from saesweep.runtime import program

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

NAME = "saesweep"
MEASURES = {"fvu": "FVU", "delta_loss": "Delta loss (nats per token)"}
OVER_TOKENS = {"train/l0": "L0", "train/fvu": "FVU (training batches)"}
LATENTS = {"dead": "Dead latents (share)", "frequency_over_1pct": "Latents that fire on over 1% of tokens (share)",
           "frequency_over_10pct": "Latents that fire on over 10% of tokens (share)",
           "firings_over_10pct": "Firings by latents that fire on over 10% of tokens (share)"}
COLUMNS = ["run:displayName", "config:arch.value", "config:sparsity.value", "summary:eval/l0", "summary:eval/fvu",
           "summary:eval/delta_loss", "summary:eval/dead"]


def workspace(entity: str, project: str, name: str, archs: Mapping[str, str]) -> "ws.Workspace":
    """archs: run id -> architecture of the runs in the project, for their colours."""
    ws = _installed()
    styles = arch_styles(archs.values())
    colours = {run: ws.RunSettings(color=styles[arch].colour) for run, arch in archs.items()}
    return ws.Workspace(
        entity=entity, project=project, name=name, sections=_sections(), auto_generate_panels=False,
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(run_settings=colours, pinned_columns=COLUMNS),
    )


def _sections() -> list["ws.Section"]:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def scatter(key: str, title: str) -> wr.ScatterPlot:
        return wr.ScatterPlot(title=f"{title} against L0", x=wr.SummaryMetric("eval/l0"), y=wr.SummaryMetric(f"eval/{key}"),
                              log_x=True, legend_template="${config:arch} ${config:aim} ${run:displayName}")

    def curves(key: str, title: str) -> wr.CustomChart:
        fields = {"x": "l0", "y": key, "stroke": "curve"}
        query = {"id": None, "name": None, "summaryTable": {"tableKey": f"{key}_curves_table"}}
        strings = {"title": f"{title} against L0, by architecture"}
        return wr.CustomChart(query=query, chart_name="wandb/line/v0", chart_fields=fields, chart_strings=strings)

    def over_tokens(key: str, title: str) -> wr.LinePlot:
        return wr.LinePlot(title=title, x="tokens", y=[key], log_y=key == "train/l0", max_runs_to_show=100)

    tables: list[Any] = [wr.WeavePanelSummaryTable(table_name=key) for key in ("matched_l0", "pareto")]
    dead = over_tokens("train/dead", "Dead latents during training (share)")
    return [
        ws.Section("Pareto", [plot(*item) for plot in (scatter, curves) for item in MEASURES.items()], is_open=True),
        ws.Section("At matched L0", tables, is_open=True),
        ws.Section("Over tokens", [over_tokens(*item) for item in OVER_TOKENS.items()], is_open=True),
        ws.Section("Latents", [dead, *(scatter(*item) for item in LATENTS.items())], is_open=True),
        ws.Section("Throughput", [over_tokens("train/tokens_per_second", "Tokens per second")], is_open=True),
    ]


def _installed() -> ModuleType:
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UsageError("saesweep dashboard needs wandb-workspaces: pip install -e '.[dashboard]'") from error
    return ws


def specification(made: "ws.Workspace") -> str:
    """As JSON."""
    return made._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)


def save(made: "ws.Workspace", update: str | None) -> str:
    """Save the workspace and return its URL. update: the URL of a workspace to replace."""
    ws = _installed()
    with wandb_runs.usage_errors(f"{made.entity}/{made.project}"):
        if update is not None:
            there = ws.Workspace.from_url(update)
            there.name, there.sections = made.name, made.sections
            there.settings, there.runset_settings = made.settings, made.runset_settings
            made = there
        return made.save().url


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=program.called("dashboard"), description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--entity", required=True, help="user or team")
    parser.add_argument("--project", required=True, help="logger.wandb.project of the sweeps")
    parser.add_argument("--name", default=NAME, help="name of the workspace")
    parser.add_argument("--update", metavar="URL", help="URL of a workspace to replace")
    parser.add_argument("--spec", type=Path, metavar="FILE", help="write the workspace as JSON; nothing is saved in W&B")
    parser.add_argument("--dry-run", action="store_true", help="print the workspace as JSON; nothing is saved in W&B")
    given = parser.parse_args(words)
    local = given.spec is not None or given.dry_run
    archs = {} if local else wandb_runs.archs(given.entity, given.project)
    made = workspace(given.entity, given.project, given.name, archs)
    if given.spec is not None:
        given.spec.write_text(specification(made) + "\n")
    if given.dry_run:
        print(specification(made))
    if not local:
        print(save(made, given.update))


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
