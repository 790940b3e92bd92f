"""The tests by the name that `explainer.tasks` gives them, which is also the name of their column."""
from __future__ import annotations

from saesweep.study.judge.detection import DETECTION
from saesweep.study.judge.fuzz import FUZZ
from saesweep.study.judge.intruder import INTRUDER
from saesweep.study.judge.simulation import SIMULATION
from saesweep.study.judge.tasks import Task

TASKS: dict[str, Task] = {"detection": DETECTION, "fuzz": FUZZ, "simulate": SIMULATION, "intruder_lm": INTRUDER}
