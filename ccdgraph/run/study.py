"""Trials of a search in a journal that outlives the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOURNAL = "trials.journal"


@dataclass(frozen=True)
class Study:
    """A study in the journal; a trial that was cut off is tried again."""

    study: Any

    @property
    def trials_done(self) -> list[Any]:
        """Those that ended with a value, or were pruned."""
        return [trial for trial in self.study.trials if trial.state.name in ("COMPLETE", "PRUNED")]

    @property
    def complete(self) -> list[Any]:
        """Those that were not pruned; a pruned one has a value too, its last report."""
        return [trial for trial in self.trials_done if trial.state.name == "COMPLETE"]

    def run(self, objective: Callable[[Any], float]) -> None:
        """One more trial."""
        self.study.optimize(objective, n_trials=1)

    def ranked(self) -> list[dict[str, Any]]:
        """Distinct settings of the trials that were not stopped, the best first."""
        finished = self.complete
        finished.sort(key=lambda trial: (-trial.value, trial.number))
        distinct = {tuple(trial.params.items()): trial.params for trial in finished}
        return list(distinct.values())

    def best(self, params: dict[str, Any]) -> Any:
        """The first finished trial of these settings, or ``None``."""
        return next((trial for trial in self.complete if trial.params == params), None)


def open_study(folder: Path, name: str, seed: int) -> Study:
    """The study of a name in the folder's journal, as far as it has come.

    Raises:
        ValueError: optuna is missing.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ValueError("the search needs optuna; install ccdgraph[tune]") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    # Trials move the seed on, or a search that goes on would draw the same ones again.
    study = optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True
    )
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    patient = optuna.pruners.MedianPruner(n_startup_trials=4)
    study.pruner = patient if name == "cheap" else optuna.pruners.NopPruner()
    return Study(study)
