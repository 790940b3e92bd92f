"""A saved W&B workspace for a project of sweeps: Pareto plots, matched L0, curves over tokens, latents, throughput.

    python -m saesweep.report.dashboard --entity ENTITY --project PROJECT

needs a login (wandb login) and the extra: pip install -e '.[dashboard]'. SAEs have the colour of their architecture; those
of later sweeps get it from --update URL, with the address that was printed. --spec FILE writes the workspace's JSON and
--dry-run prints it; neither needs a login or a network.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd

from saesweep.errors import UsageError
from saesweep.loggers import wandb_runs
from saesweep.report.style import looks
from saesweep.runtime import program

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

NAME = "saesweep"
MEASURES = {"fvu": "FVU", "delta_loss": "Delta loss (nats per token)"}
OVER_TOKENS = {"train/l0": "L0", "train/fvu": "FVU (training batches)"}
LATENTS = {"dead": "Dead latents (share)", "frequency_over_1pct": "Latents on over 1% of the tokens (share)",
           "frequency_over_10pct": "Latents on over 10% of the tokens (share)"}
COLUMNS = ["run:displayName", "config:arch.value", "config:sparsity.value", "summary:eval/l0", "summary:eval/fvu",
           "summary:eval/delta_loss", "summary:eval/dead"]


def workspace(entity: str, project: str, name: str, archs: Mapping[str, str]) -> "ws.Workspace":
    """archs: of the runs that are there already, id -> architecture, for their colours."""
    ws = _installed()
    known = looks(pd.Series(list(archs.values()), dtype=object))
    colours = {run: ws.RunSettings(color=known[arch].colour) for run, arch in archs.items()}
    return ws.Workspace(
        entity=entity, project=project, name=name, sections=_sections(), auto_generate_panels=False,
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(run_settings=colours, pinned_columns=COLUMNS),
    )


def _sections() -> list["ws.Section"]:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def scatter(key: str, words: str) -> wr.ScatterPlot:
        return wr.ScatterPlot(title=f"{words} against L0", x=wr.SummaryMetric("eval/l0"), y=wr.SummaryMetric(f"eval/{key}"),
                              log_x=True, legend_template="${config:arch} ${config:aim} ${run:displayName}")

    def curves(key: str, words: str) -> wr.CustomChart:
        fields = {"x": "l0", "y": key, "stroke": "curve"}
        query = {"id": None, "name": None, "summaryTable": {"tableKey": f"{key}_curves_table"}}
        title = {"title": f"{words} against L0, by architecture"}
        return wr.CustomChart(query=query, chart_name="wandb/line/v0", chart_fields=fields, chart_strings=title)

    def over_tokens(key: str, words: str) -> wr.LinePlot:
        return wr.LinePlot(title=words, x="tokens", y=[key], log_y=key == "train/l0", max_runs_to_show=100)

    def share(key: str, words: str) -> wr.ScatterPlot:
        return wr.ScatterPlot(title=words, x=wr.SummaryMetric("eval/l0"), y=wr.SummaryMetric(f"eval/{key}"), log_x=True)

    def table(key: str) -> wr.WeavePanelSummaryTable:
        return wr.WeavePanelSummaryTable(table_name=key)

    dead = over_tokens("train/dead", "Dead latents while training (share)")
    return [
        ws.Section("Pareto", [f(key, words) for f in (scatter, curves) for key, words in MEASURES.items()], is_open=True),
        ws.Section("At matched L0", [table("matched_l0"), table("pareto")], is_open=True),
        ws.Section("Over tokens", [over_tokens(*item) for item in OVER_TOKENS.items()], is_open=True),
        ws.Section("Latents", [dead, *(share(*item) for item in LATENTS.items())], is_open=True),
        ws.Section("Throughput", [over_tokens("train/tokens_per_second", "Tokens per second")], is_open=True),
    ]


def _installed() -> ModuleType:
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UsageError("saesweep.report.dashboard needs wandb-workspaces: pip install -e '.[dashboard]'") from error
    return ws


def specification(made: "ws.Workspace") -> str:
    return made._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)


def save(made: "ws.Workspace", update: str | None) -> str:
    """Its address. update: that of the workspace that it takes the place of."""
    ws = _installed()
    with wandb_runs.refusals_told(f"{made.entity}/{made.project}"):
        if update is not None:
            there = ws.Workspace.from_url(update)
            there.name, there.sections = made.name, made.sections
            there.settings, there.runset_settings = made.settings, made.runset_settings
            made = there
        return made.save().url


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=program.called("dashboard"), description=__doc__.split("\n")[0])
    parser.add_argument("--entity", required=True, help="user or team")
    parser.add_argument("--project", required=True, help="as logger.wandb.project of the sweeps")
    parser.add_argument("--name", default=NAME, help="of the workspace")
    parser.add_argument("--update", metavar="URL", help="of a workspace that this one takes the place of")
    parser.add_argument("--spec", type=Path, metavar="FILE", help="write the workspace's JSON there, and save nothing in W&B")
    parser.add_argument("--dry-run", action="store_true", help="print the workspace's JSON, and save nothing in W&B")
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
    try:
        main()
    except UsageError as error:
        sys.exit(str(error))
