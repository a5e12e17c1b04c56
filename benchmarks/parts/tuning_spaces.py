"""What ``tune.py`` tries of every strategy, which settings its trials have, what it writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ccdgraph.bench import StrategyEntry, SuiteConfig
from ccdgraph.bench.suite import Learner
from ccdgraph.config import rng
from ccdgraph.run.plain import overlay

Space = dict[str, list[Any]]

STEPS: Space = {
    "fit.lr": [1e-3, 3e-3, 1e-2, 3e-2],
    "fit.epochs": [5, 10, 20],
    "batch_size": [256, 512, 2048],
}
OWN: dict[str, Space] = {
    "FineTune": STEPS,
    "ExperienceReplay": {**STEPS, "ratio": [0.1, 0.2, 0.5, 1.0, 2.0]},
    "SPMF": {**STEPS, "ratio": [0.5, 1.0, 2.0]},
    "ADER": {**STEPS, "weight": [0.2, 0.8, 2.0, 5.0]},
    "GraphSAIL": {
        **STEPS,
        "weight_self": [1.0, 10.0, 100.0],
        "weight_local": [10.0, 100.0, 1e3],
        "weight_global": [1.0, 10.0, 100.0],
    },
    "Contrastive": {**STEPS, "weight": [1.0, 10.0, 100.0, 1e3], "temperature": [0.5, 1.0, 5.0]},
    "PISA": {**STEPS, "weight": [0.1, 0.5, 2.0, 10.0], "share": [0.2, 0.6, 1.0]},
    "ReLoop2": {**STEPS, "share": [0.1, 0.3, 1.0], "temperature": [0.1, 0.5]},
    "FIRE": {
        "rate": [0.0, 0.1, 0.5],
        "rank": [32, 64, 128],
        "low_pass": [0.2, 1.0, 5.0],
        "similar_users": [0.0, 0.2, 1.0],
        "similar_items": [0.0, 0.2, 1.0],
    },
    "CCD": {
        "generation.weight_user": [0.01, 0.03],
        "update.fit.epochs": [10, 20, 40],
        "update.batch_size": [256, 512],
        "update.replay": [[{"weight": weight}] for weight in (0.0, 0.05, 0.5)],
        "teacher.fit.epochs": [10, 20],
        "teacher.batch_size": [256, 512],
        "teacher.distill_weight": [0.0, 0.01],
        "teacher.replay": [[{"weight": weight, "anneal": 5.0}] for weight in (0.0, 0.05, 0.5)],
    },
}
# Small blocks have few steps: this is what every strategy tries before anything is drawn.
LONGER = {"fit": {"lr": 3e-3, "epochs": 20}, "batch_size": 256}
# Trained from nothing at every block, by the settings of the base block.
FRESH: Space = {"base.fit.lr": [2e-3, 5e-3, 1e-2, 2e-2], "base.batch_size": [256, 1024, 2048, 8192]}


def targets(suite: SuiteConfig) -> dict[str, Learner]:
    """What is tuned, by name: strategies, and their variants on each block's own graph."""
    return {
        learner.name: learner
        for learner in suite.learners()
        if learner.name.partition("/")[2] in ("", "block")
    }


def space(learner: Learner) -> Space:
    """What is tried of a strategy."""
    if learner.strategy == "FullBatch":
        return STEPS if learner.settings.get("start") == "warm" else FRESH
    if learner.strategy not in OWN:
        raise SystemExit(f"'{learner.strategy}' has no space; add one to OWN in {__file__}")
    return OWN[learner.strategy]


@dataclass(frozen=True)
class Trial:
    """One setting of one strategy, and where its outcome lies."""

    learner: Learner
    place: int
    over: dict[str, Any]
    path: Path

    def outcome(self) -> dict[str, Any] | None:
        """What it found; nothing where it has not run."""
        if not self.path.exists():
            return None
        found: dict[str, Any] = json.loads(self.path.read_text())
        if found["settings"] != self.over:
            raise SystemExit(f"'{self.path}' holds another trial; name another folder")
        return found


def planned(suite: SuiteConfig, folder: Path, trials: int) -> list[Trial]:
    """Every trial, place by place, so that a budget cuts all alike; long ones come first."""
    found = []
    for name, learner in targets(suite).items():
        for place, over in enumerate(settings(learner, trials)):
            path = folder / f"{name.replace('/', '.')}.{place}.json"
            found.append(Trial(learner, place, over, path))
    return sorted(found, key=lambda t: (t.place, t.learner.strategy not in ("CCD", "FullBatch")))


def settings(learner: Learner, trials: int) -> list[dict[str, Any]]:
    """What each trial lays over the settings: nothing, longer training, distinct random values.

    A space that is smaller than the budget is gone through once.
    """
    options, draw = space(learner), rng("tune", learner.name)
    found = [dict[str, Any](), *longer(learner)][:trials]
    tried = [overlay(learner.settings, over) for over in found]
    for _ in range(100 * trials):
        if len(found) == trials:
            break
        chosen: dict[str, Any] = {}
        for key, values in options.items():
            place = int(torch.randint(len(values), (), generator=draw))
            chosen = overlay(chosen, nested(key, values[place]))
        if (whole := overlay(learner.settings, chosen)) not in tried:
            found.append(chosen)
            tried.append(whole)
    return found


def longer(learner: Learner) -> list[dict[str, Any]]:
    """The setting that every strategy tries which learns the rows of a block by steps."""
    if learner.strategy == "CCD":
        return [{"update": LONGER, "teacher": LONGER}]
    return [LONGER] if STEPS.keys() <= space(learner).keys() else []


def nested(key: str, value: Any) -> dict[str, Any]:
    """A table with one entry, by its dotted key."""
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def written(suite: SuiteConfig, found: dict[str, Any]) -> SuiteConfig:
    """The suite with the chosen settings; a tuned variant is an entry of its own."""
    strategies = {}
    for name, learner in targets(suite).items():
        over = json.loads(found[name]["chosen"])
        first, _, variant = name.partition("/")
        entry = suite.strategies[first]
        others = {} if variant else {k: v for k, v in entry.variants.items() if k != "block"}
        strategies[name] = StrategyEntry(
            learner.strategy, overlay(learner.settings, over), others, learner.backbone_key
        )
    return replace(suite, name="", strategies=strategies, shared={})
