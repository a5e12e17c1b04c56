"""The rows and tables of ``experiments.py``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from ccdgraph.bench import Comparison, Outcome

NEAR = 0.95  # of the accuracy without drift, what counts as recovered


def row(outcomes: Sequence[Outcome], test: Comparison | None) -> dict[str, Any]:
    """What a table shows of a variant: the student, its new entities, the teacher, the test."""
    finished = [o.result for o in outcomes if o.status == "finished"]
    if not finished:
        return {"seeds": 0}
    last = finished[0].num_blocks - 1

    def over(value: Callable[[Any], float]) -> dict[str, float | None]:
        return spread([value(result) for result in finished])

    return {
        "LA": over(lambda r: r.matrix("student").learning_average(last)),
        "RA": over(lambda r: r.matrix("student").retained_average(last)),
        "H": over(lambda r: r.matrix("student").h_mean(last)),
        "new users": over(lambda r: newest(r.matrix("student", group="new_users"))),
        "new items": over(lambda r: newest(r.matrix("student", group="new_items"))),
        "teacher H": over(lambda r: r.matrix("teacher").h_mean(last)),
        "H of a user, more": None if test is None else -test.difference,
        "p (Holm)": None if test is None else test.corrected,
        "seeds": len(finished),
    }


def newest(matrix: Any) -> float:
    """The mean right after each block from 1 on, where there was anything to measure."""
    values = [float(v) for v in matrix.values.diagonal()[1:] if not math.isnan(float(v))]
    return statistics.fmean(values)


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation}


def recovery(
    name: str, series: dict[Any, list[float]], seeds: Sequence[int], at: int
) -> dict[str, Any]:
    """Accuracy on the newest block relative to the stream without drift, and blocks to recover."""
    ratios = [
        [d / c for d, c in zip(series[name, "drift", s], series[name, "calm", s], strict=True)][at:]
        for s in seeds
        if (name, "drift", s) in series and (name, "calm", s) in series
    ]
    late = [next((n for n, r in enumerate(one) if r >= NEAR), None) for one in ratios]
    known = [n for n in late if n is not None]
    return {
        **{f"block {at + n}": spread(values) for n, values in enumerate(zip(*ratios, strict=True))},
        "blocks to recover": statistics.fmean(known) if known else None,
        "recovered": f"{len(known)} of {len(late)}",
    }


def markdown(found: dict[str, Any]) -> str:
    """Every part as a table."""
    parts = []
    for name, table in found.items():
        if name == "about":
            continue
        columns = list(dict.fromkeys(key for row in table.values() for key in row))
        head = [name, *columns]
        lines = [head, ["---"] * len(head)]
        lines += [[n, *(figure(r.get(c)) for c in columns)] for n, r in table.items()]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(parts)


def figure(value: Any) -> str:
    """A number, or a mean with its deviation."""
    if isinstance(value, dict):
        tail = "" if value["sd"] is None else f" ± {figure(value['sd'])}"
        return figure(value["mean"]) + tail
    if isinstance(value, float):
        if 0 < abs(value) < 5e-5:  # a p that is no zero does not look like one
            return f"{value:.0e}"
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    return "" if value is None else str(value)
