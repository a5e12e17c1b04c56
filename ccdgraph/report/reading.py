"""Reading the folder of a run or of a suite for a report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccdgraph.bench.results import CELLS, RESULTS, VERSION, read_results
from ccdgraph.report.content import Content, Group, Member, Method, Newest
from ccdgraph.report.distilled import KIND
from ccdgraph.run import Row
from ccdgraph.run.folder import ABOUT, CONFIG, read_about, read_rows

SUITE = "suite.json"
STUDENT, TEACHER = "reference", "teacher 0"  # what a distillation trains first
NEEDED = ("protocol", "mask", "ties", "metric", "results", "config", "hardware", "versions")
_Places = dict[tuple[str, ...], dict[str, list[Member]]]


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


def read_distillation(folder: Path) -> dict[str, Any] | None:
    """``run.json`` of a static distillation; nothing where the folder holds something else.

    Raises:
        ValueError: the distillation in the folder has not finished, or its file is damaged.
    """
    if (folder / ABOUT).exists():
        about = read_about(folder)
        return about if about.get("kind") == KIND else None
    if (folder / STUDENT).exists() or (folder / TEACHER).exists():
        raise ValueError(
            f"the distillation in '{folder}' has not finished; go on with 'ccdgraph distill "
            f"{folder / CONFIG} --to {folder} --resume'"
        )
    return None


def _read_run(folder: Path) -> Content:
    about = _about(folder)
    if not about["results"]:
        raise ValueError(f"'{folder}' has measured no block yet; let the run go on")
    strategy = about["strategy"]
    learnt = max(max(one["with_base"]["blocks"]) for one in about["results"].values())
    rows = read_rows(folder, until=learnt)
    member = Member(strategy, about, _newest(rows, about["metric"]), {})
    methods = (Method(name, name, i, (member,)) for i, name in enumerate(about["results"]))
    place = (about["data"]["name"], about["protocol"], about["mask"])
    group = Group(_title(place), tuple(methods))
    title = f"{strategy} on {about['data']['name']}"
    return Content(title, (group,), complete=about["complete"])


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
    places: _Places = {}
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
        why = missing[0][1] if missing else "it has no cells"
        raise ValueError(f"no cell of the suite in '{folder}' has results: {why}")
    order: dict[str, int] = {}
    groups = tuple(_group(place, found, stored, order) for place, found in _beside(places).items())
    return Content(f"Suite {name}", groups, tuple(missing))


def _beside(places: _Places) -> _Places:
    """The same, with strategies that have no backbone to choose beside those of every backbone."""
    for own in [place for place in places if place[3] == "own"]:
        others = [place for place in places if place[:3] == own[:3] and place != own]
        for place in others:
            places[place] |= places[own]
        if others:
            del places[own]
    return places


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
    tests = tuple(test for test in stored["comparisons"] if tuple(test["place"]) == place)
    return Group(_title(place), tuple(methods), tests)


def _title(place: Sequence[str]) -> str:
    data, protocol, mask, *backbone = place
    words = [data, f"protocol {protocol}", f"mask {mask}"]
    return ", ".join([*words, *(f"backbone {name}" for name in backbone if name != "own")])


def _cell(folder: Path, cell: Mapping[str, Any], rows: Sequence[Row]) -> Member | str:
    """A finished cell, or why it cannot be shown."""
    try:
        about = _about(folder / "cells" / cell["cell"])
    except ValueError as error:
        return f"unreadable: {error}"
    newest = _newest(rows, about["metric"])
    return Member(cell["strategy"], about, newest, cell["base_seconds"])


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
