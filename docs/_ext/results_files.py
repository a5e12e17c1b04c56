"""Results files as nested tables, whatever command wrote them.

A file of tables is taken as it is. Of ``results.parquet`` of a suite the means over seeds are made
here: a table for every data, protocol, mask and backbone. A strategy that the suite names and that
has not run is there as well, without numbers.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MISSING = "not measured yet"


def content(path: Path) -> dict[str, Any]:
    """The tables of a file, with ``about``."""
    if path.suffix == ".parquet":
        return suite(path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def suite(path: Path, metric: str = "recall@20") -> dict[str, Any]:
    """LA, RA and H after the last block, of what each strategy serves and of its teacher."""
    import pandas as pd

    cells = json.loads(path.with_name("cells.json").read_text(encoding="utf-8"))["cells"]
    finished = {cell["cell"]: cell for cell in cells if cell["status"] == "finished"}
    rows = pd.read_parquet(path).query(
        "metric == @metric and split == 'test' and group == 'all' and cell in @finished"
    )
    seeds: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for (cell, scorer), part in rows.groupby(["cell", "scorer"], sort=False):
        if scorer in (finished[cell]["served"], "teacher"):
            about = finished[cell]
            place = ", ".join(about[key] for key in ("data", "protocol", "mask", "backbone"))
            seeds[place, f"{about['strategy']}, {scorer}"].append(averages(part))
    tables: dict[str, Any] = defaultdict(dict)
    for (place, row), each in seeds.items():
        tables[place][row] = {name: _over([one[name] for one in each]) for name in each[0]}
        tables[place][row]["seeds"] = len(each)
    for place, table in tables.items():
        names = dict.fromkeys(cell["strategy"] for cell in cells)
        absent = dict.fromkeys(("LA", "RA", "H", "H without D0"), MISSING)
        tables[place] = {row: table.get(row, absent) for row in planned(names, table)}
    first = next(iter(finished.values()))
    return {"about": _about(first, metric), **tables}


def planned(strategies: Iterable[str], measured: Iterable[str]) -> list[str]:
    """``strategy, scorer`` of everything that the suite names.

    A strategy that has not run has the scorers of its family, which is the name before ``/``, or
    those of all others where they agree; else its row is its name alone.
    """
    own: dict[str, dict[str, None]] = defaultdict(dict)
    for row in measured:
        strategy, scorer = row.rsplit(", ", 1)
        for name in (strategy, strategy.split("/")[0]):
            own[name][scorer] = None
    common = next(iter(own.values())) if len(set(map(tuple, own.values()))) == 1 else {}
    rows = []
    for name in strategies:
        scorers = own.get(name) or own.get(name.split("/")[0]) or common
        rows += [f"{name}, {scorer}" for scorer in scorers] or [name]
    return rows


def averages(rows: Any) -> dict[str, float]:
    """LA, RA and H of one run, from its rows ``learnt``, ``tested`` and ``value``.

    LA is the mean of each block right after it was learnt, RA that of all blocks after the last.
    """
    diagonal, final = (
        rows[chosen].set_index("tested").value
        for chosen in (rows.learnt == rows.tested, rows.learnt == rows.learnt.max())
    )
    later = [statistics.fmean(part[part.index > 0]) for part in (diagonal, final)]
    both = [statistics.fmean(part) for part in (diagonal, final)]
    return {
        **dict(zip(("LA", "RA"), both, strict=True)),
        "H": statistics.harmonic_mean(both),
        "H without D0": statistics.harmonic_mean(later),
    }


def _over(values: list[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def _about(cell: dict[str, Any], metric: str) -> dict[str, Any]:
    return {"metric": metric, "hardware": cell["hardware"], "versions": cell["versions"]}
