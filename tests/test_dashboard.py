"""The specification of the W&B workspace: runs have every key that a panel shows."""

import json
import os
import subprocess
import sys

import pytest
from offline import keys, read, saes

from saesweep.errors import UsageError
from saesweep.report import dashboard
from saesweep.report.style import STYLES

ARGUMENTS = ("--entity", "team", "--project", "saesweep")

pytestmark = pytest.mark.usefixtures("without_wandb_login")


@pytest.fixture
def spec(tmp_path):
    dashboard.main([*ARGUMENTS, "--name", "mine", "--spec", str(tmp_path / "spec.json")])
    return json.loads((tmp_path / "spec.json").read_text())


def panels(spec):
    return [panel for part in spec["spec"]["section"]["panelBankConfig"]["sections"] for panel in part["panels"]]


def of(spec, kind):
    return [panel["config"] for panel in panels(spec) if panel["viewType"] == kind]


def test_the_specification_has_the_project_and_its_sections(spec):
    assert (spec["entity"], spec["project"], spec["displayName"]) == ("team", "saesweep", "mine")
    names = [part["name"] for part in spec["spec"]["section"]["panelBankConfig"]["sections"]]
    assert names == ["Pareto", "At matched L0", "Over tokens", "Latents", "Throughput"]


def test_runs_of_saes_have_every_key_of_the_plots(spec, reference_sweep):
    for folder in saes(reference_sweep):
        logged = keys(read(folder))
        for config in of(spec, "Scatter Plot"):
            for axis in (config["xAxis"], config["yAxis"]):
                assert axis.removeprefix("summary:") in logged
        for config in of(spec, "Run History Line Plot"):
            assert config["xAxis"] == "tokens" and set(config["metrics"]) <= logged


def test_the_sweeps_run_has_the_keys_of_the_curves_and_tables(spec, reference_sweep):
    run = read(reference_sweep)
    for config in of(spec, "Vega2"):
        (arguments,) = [field["args"] for field in config["userQuery"]["queryFields"][0]["fields"] if field.get("args")]
        key = arguments[0]["value"].removesuffix("_table")
        logged = run["config"][f"_wandb/visualize/{key}"]["panel_config"]
        assert config["panelDefId"] == logged["panelDefId"] and config["fieldSettings"] == logged["fieldSettings"]
        assert config["transform"] == logged["transform"]
    assert len(of(spec, "Vega2")) == 2 and "pareto/path" in run["history"][-1]
    assert {key for key in ("pareto", "matched_l0") if f'"{key}"' in json.dumps(of(spec, "Weave"))} == {"pareto", "matched_l0"}


def test_each_quantity_has_a_plot(spec):
    shown = [key for config in of(spec, "Run History Line Plot") for key in config["metrics"]]
    assert shown == ["train/l0", "train/fvu", "train/dead", "train/tokens_per_second"]
    latents = {config["yAxis"] for config in of(spec, "Scatter Plot")}
    assert {"summary:eval/dead", "summary:eval/frequency_over_1pct", "summary:eval/frequency_over_10pct",
            "summary:eval/firings_over_10pct"} <= latents


def test_pareto_plots_have_l0_on_a_logarithmic_axis(spec):
    shown = [(config["xAxis"], config["yAxis"]) for config in of(spec, "Scatter Plot")]
    assert shown[:2] == [("summary:eval/l0", "summary:eval/fvu"), ("summary:eval/l0", "summary:eval/delta_loss")]
    assert all(config["xAxisLogScale"] for config in of(spec, "Scatter Plot"))


def test_a_run_has_the_colour_of_its_architecture():
    workspace = dashboard.workspace("team", "saesweep", "mine", {"a1": "topk", "b2": "gated", "c3": "topk"})
    colours = json.loads(dashboard.specification(workspace))["spec"]["section"]["customRunColors"]
    assert colours == {"a1": STYLES["topk"].colour, "b2": STYLES["gated"].colour, "c3": STYLES["topk"].colour}


def test_a_dry_run_prints_the_specification(capsys):
    dashboard.main([*ARGUMENTS, "--dry-run"])
    assert json.loads(capsys.readouterr().out)["displayName"] == "saesweep"


def test_a_missing_login_is_refused_with_the_fix():
    with pytest.raises(UsageError, match="nobody is logged in to W&B: run wandb login"):
        dashboard.main(ARGUMENTS)


@pytest.mark.slow
def test_a_missing_package_is_refused_with_the_command_that_installs_it(tmp_path):
    (tmp_path / "wandb_workspaces.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "saesweep.report.dashboard", *ARGUMENTS, "--dry-run"]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert ended.returncode == 1 and "pip install -e '.[dashboard]'" in ended.stderr and ended.stderr.count("\n") == 1
