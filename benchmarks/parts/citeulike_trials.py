"""Settings that `citeulike.py` tries on validation rows, and schedules of its tables."""

from __future__ import annotations

from typing import Any


def settings(method: str, **own: Any) -> dict[str, Any]:
    """Settings of one method, as a change to a cell."""
    return {"methods": {method: own}}


PHR = [
    *(
        settings("phr", enrich=enrich, weight=weight, hidden=hidden)
        for enrich in (True, False)
        for weight in (0.01, 0.1)
        for hidden in (0.0072, 0.05)  # 30 and 210 units, around the width of the teacher
    ),
    settings("phr", enrich=False, hidden=0.0024),
    settings("phr"),
    settings("phr", enrich=False),
    settings("phr", enrich=False, hidden=1.0, small_start=False),
    *(
        settings("phr", enrich=enrich, weight=weight, hidden=hidden)
        for enrich in (True, False)
        for weight, hidden in ((0.01, 0.0024), (0.003, 0.0072), (0.003, 0.0024), (0.03, 0.0072))
    ),
]
DIRECTLY = [
    settings("rrd", k=k, consensus=temperature) for k in (50, 100) for temperature in (0.0, 10, 50)
]
HETCOMP = [
    *(
        settings("hetcomp", by_user=True, temperature=temperature, order=order)
        for temperature in (10.0, 50.0)
        for order in (50, 100)
    ),
    settings("hetcomp", temperature=50.0),
    settings("hetcomp", by_user=True, temperature=50.0, observed=1),
]
"""What is tried for the rows that are tuned, as many settings on either side of a comparison."""

SCHEDULES = {
    "de": {"de": {"epochs": 124}},
    "de-rrd": {"de": {"epochs": 124}},
    "htd": {"htd": {"epochs": 31}},
    "concf": {"concf": {"every": 2, "start": 10}},
    "hetcomp": {"hetcomp": {"every": 1, "temperature": 50.0}},
}
"""Schedules of the side-by-side tables, as much shorter than the authors' as the trainings are."""

_LISTS = settings("rrd", k=100)
_AGREED = settings("hetcomp", by_user=True, temperature=50.0)
COMBINATIONS = [
    {"distill": ["rrd"], "base_weight": 0.0, **_LISTS},
    {"distill": ["rrd"], "base_weight": 0.0, **_LISTS, "student": {"fit": {"lr": 1e-2}}},
    {"distill": ["rrd"], "base_weight": 0.0, **_LISTS, "student": {"fit": {"weight_decay": 1e-4}}},
    {"distill": ["rrd"], "base_weight": 0.0, **settings("rrd", k=200)},
    {"distill": ["rrd"], "base_weight": 0.0, **settings("rrd", k=50)},
    {"distill": ["rrd"], **_LISTS},
    {"distill": ["rrd", "ir"], "base_weight": 0.0, **_LISTS},
    {"distill": ["rrd", "ir"], **_LISTS},
    {"distill": ["hetcomp"], "base_weight": 0.0, **_AGREED},
    {"distill": ["hetcomp", "ir"], "base_weight": 0.0, **_AGREED},
    {"distill": ["rrd"], "base_weight": 0.0, **settings("rrd", k=100, consensus=50.0)},
    {"distill": ["ir-rrd"], "base_weight": 0.0},
]
"""What may let a student of width 8 keep most of its teachers' recall."""
