"""Figures and tests of the students that benchmarks/online.py trains."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from parts.online_world import METRIC, Measured

from ccdgraph.bench.paired import holm, wilcoxon
from ccdgraph.calibration import Answers, ece_test, reliability


def cell_figures(own: Sequence[Measured], alone: Sequence[Measured]) -> dict[str, Any]:
    """Means over seeds, and the gap to no distillation by block."""
    blocks = own[0].recall
    gap = {
        str(b): statistics.mean(
            float(o.recall[b][1].mean() - a.recall[b][1].mean())
            for o, a in zip(own, alone, strict=True)
        )
        for b in blocks
    }
    recall, ece = [float(o.users.mean()) for o in own], [o.table().ece for o in own]
    return {METRIC: recall, "ece": ece, "gap by block": gap}


def compare(
    first: Sequence[Measured], second: Sequence[Measured], *, shared: bool
) -> dict[str, float]:
    """Differences of the first: recall by user, ECE by seed and by user.

    Args:
        first: of one kind of student, by seed.
        second: of the other.
        shared: the users are the same for all seeds; their mean over seeds is then what is tested.
    """
    from scipy import stats

    by = [a.users - b.users for a, b in zip(first, second, strict=True)]
    difference = pd.concat(by).groupby(level=0).mean() if shared else pd.concat(by)
    ece = [[m.table().ece for m in side] for side in (first, second)]
    answers = [[Answers(*m.predictions()) for m in side] for side in (first, second)]
    return {
        METRIC: float(difference.mean()),
        f"p {METRIC}": wilcoxon(difference),
        "ece": statistics.mean(ece[0]) - statistics.mean(ece[1]),
        "p ece": float(stats.ttest_rel(*ece).pvalue) if len(first) > 1 else 1.0,
        "p ece by user": ece_test(*answers, shared=shared),
        "pairs": len(difference),
    }


def corrected(tests: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Holm's correction over the cells, for each quantity."""
    for name in (f"p {METRIC}", "p ece", "p ece by user"):
        for test, p in zip(tests.values(), holm([t[name] for t in tests.values()]), strict=True):
            test[f"corrected {name}"] = p
    return tests


def curve(measured: Sequence[Measured]) -> dict[str, list[float]]:
    """Predicted and observed shares of all seeds together, for a reliability plot."""
    pairs = [m.predictions()[:2] for m in measured]
    table = reliability(*(torch.cat(part) for part in zip(*pairs, strict=True)))
    filled = table.count > 0
    return {
        name: getattr(table, name)[filled].tolist() for name in ("predicted", "observed", "count")
    }


def cost_figures(costs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of a teacher, and what four students cost as a multiple of one's."""
    mean = {name: statistics.mean(cost[name] for cost in costs) for name in costs[0]}
    four, one = (mean["label"] + n * mean["read"] for n in (4, 1))
    return {**mean, "four students / one student": four / one}
