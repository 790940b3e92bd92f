"""A search with optuna: batches of proposals, the launcher's results told, and the best at the end.

The study is in optuna.jsonl of the sweep's folder, where optuna appends a line per event. A command that was interrupted
starts with the batch that was running: its finished SAEs are kept as in every sweep, the others continue from checkpoints.
"""
import difflib
import importlib.util
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.utils import instantiate
from omegaconf import DictConfig

from saesweep.config.schema import NOT_THE_SAES
from saesweep.errors import UsageError
from saesweep.runtime import program
from saesweep.sweep import rollback, studies

if TYPE_CHECKING:
    from optuna import Study

    from saesweep.sweep.search_space import Words

JOURNAL = "optuna.jsonl"


@dataclass(frozen=True)
class Search:
    """conf/hydra/sweeper/optuna.yaml."""

    objective: str
    direction: str
    trials: int
    batch: int
    sampler: Mapping[str, Any]

    def run(self, words: Sequence[str], folder: Path, loader: ConfigLoader, launcher: Launcher, plan: bool) -> None:
        from saesweep.sweep import search_space

        found = search_space.parsed(words, loader)
        rollback.remember(folder, [JOURNAL])
        study = self.study(found, folder)
        first = 0
        while batch := self.next_batch(study, found):
            proposed = [tuple(search_space.overrides(found, params)) for params in batch.values()]
            once = list(dict.fromkeys(proposed))
            returns = dict(zip(once, launcher.launch(once, initial_job_idx=first), strict=True))
            if plan:
                return
            self.tell(study, list(batch), [returns[one] for one in proposed])
            first += len(once)
            rollback.remember(folder, [JOURNAL])
        rollback.commit()
        self.show_best(study, found)

    def study(self, words: "Words", folder: Path) -> "Study":
        """Of this objective and these settings, with its trials so far."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        texts = [word if isinstance(word, str) else f"{key}={word}" for key, word in words.items()]
        own = sorted(text for text in texts if text.lstrip("+~").split("=")[0].split(".")[0] not in NOT_THE_SAES)
        name = " ".join([self.direction, self.objective, *own])
        direction = optuna.study.StudyDirection[self.direction.upper()]
        return optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)

    def next_batch(self, study: "Study", words: "Words") -> dict[int, dict[str, Any]]:
        """The values of each trial, by its number: the trials that were interrupted, else new ones; none at the end."""
        from optuna.trial import TrialState

        from saesweep.sweep.search_space import space

        waiting = {trial.number: trial.params for trial in study.get_trials(states=(TrialState.RUNNING,))}
        for number in [number for number, params in waiting.items() if len(params) < len(space(words))]:
            study.tell(number, state=TrialState.FAIL)  # interrupted while it was proposed
            del waiting[number]
        if waiting:
            return waiting
        count = len(study.trials)
        seed = self.sampler.get("seed")
        study.sampler = instantiate(self.sampler, **({} if seed is None else {"seed": seed + count}))
        asked = [study.ask(space(words)) for _ in range(min(self.batch, self.trials - count))]
        return {trial.number: trial.params for trial in asked}

    def tell(self, study: "Study", numbers: Sequence[int], returns: Sequence[JobReturn]) -> None:
        """A failed SAE is a failed trial. Raises UsageError if no finished SAE has the objective."""
        from optuna.trial import TrialState

        finished = [one for one in returns if one.status == JobStatus.COMPLETED]
        values = [_value(one, self.objective) if one in finished else None for one in returns]
        if finished and all(value is None for value in values):
            known = [key for key in _metrics() if _value(finished[0], key) is not None]
            raise UsageError(f"objective={self.objective}: these SAEs have no such number; they have {', '.join(known)}")
        for number, value in zip(numbers, values, strict=True):
            study.tell(number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)

    def show_best(self, study: "Study", words: "Words") -> None:
        from optuna.trial import TrialState

        from saesweep.sweep.search_space import overrides

        done = study.get_trials(states=(TrialState.COMPLETE,))
        if not done:
            sys.exit(f"all {len(study.trials)} trials failed; the reasons are above, and in failed.txt of each folder")
        failed = f", {len(study.trials) - len(done)} failed" * (len(study.trials) > len(done))
        best = study.best_trial
        print(f"\nbest of {len(done)} trials{failed}: {self.objective} {best.value:.6g}\n"
              f"  {program.called('train')} {shlex.join(overrides(words, best.params))}", flush=True)


def _value(returned: JobReturn, metric: str) -> float | None:
    numbers: Any = returned.return_value or {}
    value = numbers.get(metric)
    return None if value is None or not math.isfinite(value) else float(value)


def _metrics() -> list[str]:
    from saesweep.storage.sweep_table import METRICS  # pandas

    return METRICS


def refuse(search: Search, config: DictConfig) -> None:
    """Raises UsageError for what no trial could use."""
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("hydra/sweeper=optuna: needs the package optuna: pip install -e '.[optuna]' or pip install "
                         "'optuna>=5,<6'")
    if search.objective not in (metrics := _metrics()):
        close = difflib.get_close_matches(str(search.objective), metrics, n=1)
        fix = f"did you mean {close[0]}? There are" if close else "there are"
        raise UsageError(f"objective={search.objective}: there is no such metric; {fix} {', '.join(metrics)}")
    if search.direction not in ("minimize", "maximize"):
        raise UsageError(f"hydra.sweeper.direction={search.direction}: must be minimize or maximize")
    for key in ("trials", "batch"):
        if not isinstance(count := getattr(search, key), int) or count < 1:
            raise UsageError(f"hydra.sweeper.{key}={count}: must be a whole number of at least 1")
    if (study := studies.name_of(config)) != "none":
        raise UsageError(f"study={study}: would be made after each batch; leave it out, and run {program.called('study')} "
                         "afterwards")
