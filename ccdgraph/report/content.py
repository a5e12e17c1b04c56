"""What a report is about: the runs in a folder, gathered by method."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ccdgraph.bench.results import CELLS, RESULTS, VERSION, read_results
from ccdgraph.run import Row
from ccdgraph.run.folder import ABOUT, read_about, read_rows

SUITE = "suite.json"
NEEDED = ("protocol", "mask", "ties", "metric", "results", "config", "hardware", "versions")
Newest = Mapping[tuple[str, str], Sequence[float | None]]


@dataclass(frozen=True)
class Member:
    """One run: a seed of a strategy.

    Args:
        strategy: its name in the report.
        about: ``run.json``.
        newest: the headline metric on each block right after it was learnt, by scorer and group.
        shared: seconds by ``"block/stage"`` of teachers that were trained for several runs.
    """

    strategy: str
    about: Mapping[str, Any]
    newest: Newest
    shared: Mapping[str, float]


@dataclass(frozen=True)
class Method:
    """A scorer of a strategy, over seeds; ``index`` decides how it is drawn everywhere."""

    name: str
    scorer: str
    index: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Group:
    """Methods that may be compared: the same data, protocol, mask and backbone.

    Args:
        title: in words.
        place: data, protocol, mask and backbone.
        methods: every scorer that is shown.
        comparisons: paired tests, as ``cells.json`` holds them.
    """

    title: str
    place: tuple[str, ...]
    methods: tuple[Method, ...]
    comparisons: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def strategies(self) -> dict[str, tuple[Member, ...]]:
        """The runs by strategy."""
        return {m.strategy: method.members for method in self.methods for m in method.members}

    @property
    def about(self) -> Mapping[str, Any]:
        """``run.json`` of the first run; all runs measure the same way."""
        return self.methods[0].members[0].about

    @property
    def summaries(self) -> tuple[str, ...]:
        """What the protocol measures: ``"next"`` never tests a block a second time."""
        retained = ("RA", "H", "forgetting", "BWT")
        return ("LA",) if self.about["protocol"] == "next" else ("LA", *retained)

    @property
    def main(self) -> str:
        """The summary that ranks methods."""
        return "H" if "H" in self.summaries else "LA"

    @property
    def seeds(self) -> str:
        """The number of seeds in words."""
        counts = sorted({len(method.members) for method in self.methods})
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return "1 seed" if counts == [1] else f"mean ± standard deviation over {number} seeds"

    @property
    def conditions(self) -> str:
        """How every number of the group was measured."""
        about = self.about
        return (
            f"{about['metric']} on test rows, protocol {about['protocol']}, mask {about['mask']}, "
            f"ties by {about['ties']}"
        )

    @property
    def rule(self) -> str:
        """The same of numbers over all seeds."""
        return f"{self.conditions}; {self.seeds}"


@dataclass(frozen=True)
class Content:
    """All that a report shows.

    Args:
        title: name of the data or of the suite.
        kind: ``"run"`` or ``"suite"``.
        groups: what may be compared.
        missing: cells without results, with the reason.
        complete: whether a run has reached its end.
    """

    title: str
    kind: str
    groups: tuple[Group, ...]
    missing: tuple[tuple[str, str], ...] = ()
    complete: bool = True


def read_content(folder: str | Path) -> Content:
    """The runs in the folder of a run or of a suite.

    Raises:
        ValueError: the folder holds neither, nothing is measured yet, or a file is damaged or of
            another version.
    """
    folder = Path(folder)
    if (folder / CELLS).exists():
        return _read_suite(folder)
    if (folder / SUITE).exists():
        raise ValueError(f"'{folder}' holds a suite without results; let 'ccdgraph bench' finish")
    if (folder / ABOUT).exists():
        return _read_run(folder)
    raise ValueError(f"'{folder}' holds no run and no suite; name the folder of one")


def _read_run(folder: Path) -> Content:
    about = _about(folder)
    if not about["results"]:
        raise ValueError(f"'{folder}' has measured no block yet; let the run go on")
    strategy = about["strategy"]
    learnt = max(max(one["with_base"]["blocks"]) for one in about["results"].values())
    rows = read_rows(folder, until=learnt)
    member = Member(strategy, about, _newest(rows, about["metric"]), {})
    methods = (Method(name, name, i, (member,)) for i, name in enumerate(about["results"]))
    place = (about["data"]["name"], about["protocol"], about["mask"], "own")
    group = Group(f"{strategy} on {about['data']['name']}", place, tuple(methods))
    return Content(group.title, "run", (group,), complete=about["complete"])


def _read_suite(folder: Path) -> Content:
    try:
        stored = json.loads((folder / CELLS).read_text(encoding="utf-8"))
        cells, version = stored["cells"], stored["version"]
        name = json.loads((folder / SUITE).read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the suite in '{folder}' is damaged ({error}); run it again") from error
    if version != VERSION:
        raise ValueError(
            f"'{folder / CELLS}' has version {version}, this release reads {VERSION}; run the "
            "suite again"
        )
    measured = _measured(folder / RESULTS)
    places: dict[tuple[str, ...], dict[str, list[Member]]] = {}
    missing = []
    for cell in cells:
        place = tuple(cell[key] for key in ("data", "protocol", "mask", "backbone"))
        member = cell["error"] or "not run yet"
        if cell["status"] == "finished":
            member = _cell(folder, cell, measured.get(cell["cell"], []))
        if isinstance(member, str):
            missing.append((f"{' '.join((*place, cell['strategy']))} seed {cell['seed']}", member))
        else:
            places.setdefault(place, {}).setdefault(cell["strategy"], []).append(member)
    if not places:
        raise ValueError(f"no cell of the suite in '{folder}' has results; {missing[0][1]}")
    order: dict[str, int] = {}
    groups = tuple(_group(place, found, stored, order) for place, found in places.items())
    return Content(name, "suite", groups, tuple(missing))


def _group(
    place: tuple[str, ...],
    strategies: Mapping[str, Sequence[Member]],
    stored: Mapping[str, Any],
    order: dict[str, int],
) -> Group:
    """The served scorer of each strategy and its teacher; ``order`` numbers methods as met."""
    methods = []
    for strategy, members in strategies.items():
        about = members[0].about
        wanted = [name for name in (about["served"], "teacher") if name in about["results"]]
        scorers = list(dict.fromkeys(wanted)) or list(about["results"])
        for scorer in scorers:
            name = strategy if len(scorers) == 1 else f"{strategy} {scorer}"
            methods.append(Method(name, scorer, order.setdefault(name, len(order)), tuple(members)))
    data, protocol, mask, backbone = place
    title = f"{data}, protocol {protocol}, mask {mask}, backbone {backbone}"
    tests = tuple(test for test in stored["comparisons"] if tuple(test["place"]) == place)
    return Group(title, place, tuple(methods), tests)


def _cell(folder: Path, cell: Mapping[str, Any], rows: Sequence[Row]) -> Member | str:
    """A finished cell, or why it cannot be shown."""
    try:
        about = _about(folder / "cells" / cell["cell"])
    except ValueError as error:
        return f"unreadable: {error}"
    newest = _newest(rows, about["metric"])
    return Member(cell["strategy"], about, newest, cell["teacher_seconds"])


def _about(folder: Path) -> dict[str, Any]:
    about = read_about(folder)
    lacking = [key for key in NEEDED if key not in about]
    if lacking:
        raise ValueError(f"'{folder / ABOUT}' lacks '{lacking[0]}'; run again with this release")
    return about


def _measured(path: Path) -> dict[str, list[Row]]:
    """What each cell measured on the newest block."""
    import pyarrow.compute as pc

    table = read_results(path)
    table = table.filter(pc.field("learnt") == pc.field("tested"))
    found: dict[str, list[Row]] = {}
    for row in table.to_pylist():
        found.setdefault(row["cell"], []).append(Row(**{name: row[name] for name in Row._fields}))
    return found


def _newest(rows: Sequence[Row], metric: str) -> Newest:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        wanted = row.split == "test" and row.metric == metric and row.learnt == row.tested
        if wanted and not math.isnan(row.value):
            found.setdefault((row.scorer, row.group), {})[row.learnt] = row.value
    length = 1 + max((row.learnt for row in rows), default=-1)
    return {key: [known.get(k) for k in range(length)] for key, known in found.items()}
