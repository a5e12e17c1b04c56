"""Results of `citeulike.py`: a file of cells and tables, and the tables to read."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from parts.citeulike_page import markdown
from parts.citeulike_protocols import PROTOCOLS, SEARCH, UNTAUGHT, Cell

from ccdgraph.checkpoint import atomic_write_text

PLACE = ("protocol", "row", "student", "teacher", "seed")
COST = ("parameters", "epochs", "best_epoch", "seconds_per_epoch", "peak_memory")


def collect(tasks: Iterable[Cell], folder: Path) -> list[dict[str, Any]]:
    """What the finished cells measured, a row a cell; two where heads agree on lists."""
    found = []
    for cell in tasks:
        path = folder / cell.name / "run.json"
        if not path.exists():
            continue
        about = _about(path)
        models, taught = about["models"], cell.row != "teachers"
        model = models["student" if taught else "teacher"]
        row = {key: getattr(cell, key) for key in PLACE}
        row |= {"hardware": about["hardware"], "device": about["device"]}
        row["config"] = settings(cell.config)
        row |= {
            "jobs": int((folder / f"{cell.name}.jobs").read_text()),
            "metrics": model["metrics"],
        }
        if taught:
            row |= {key: model[key] for key in COST} | {"agreement": about["agreement"]}
        else:
            own = {name: one for name, one in models.items() if name.startswith("teacher ")}
            row["members"] = {
                name: {key: one[key] for key in (*COST, "metrics")} for name, one in own.items()
            }
        found.append(row)
        for label, heads in PROTOCOLS[cell.protocol].agreed.items():
            if heads == cell.row and "ensemble" in model:
                found.append(row | {"row": label, "metrics": model["ensemble"]})
    return found


@functools.cache
def _about(path: Path) -> dict[str, Any]:
    """What a finished run says of itself, which does not change."""
    about: dict[str, Any] = json.loads(path.read_text())
    return about


def recorded(path: Path, tasks: Iterable[Cell]) -> list[dict[str, Any]]:
    """Rows of a file of results that belong to cells, configured as they are."""
    held = json.loads(path.read_text())["cells"] if path.exists() else []
    asked = {cell.place: settings(cell.config) for cell in tasks}
    return [row for row in held if asked.get(_asked(row)) == row["config"]]


def _asked(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The place of the cell that measured a row."""
    agreed = PROTOCOLS[row["protocol"]].agreed
    return tuple(agreed.get(row[part], row[part]) if part == "row" else row[part] for part in PLACE)


def cell_name(row: Mapping[str, Any]) -> str:
    """The name of the cell of a row."""
    return Cell(*(row[part] for part in PLACE), config={}).name


def planned(tasks: Iterable[Cell]) -> list[dict[str, Any]]:
    """Where the cells of a run stand, finished or not."""
    places = []
    for cell in tasks:
        place = {key: getattr(cell, key) for key in PLACE}
        agreed = PROTOCOLS[cell.protocol].agreed.items()
        places += [place, *(place | {"row": label} for label, row in agreed if row == cell.row)]
    return places


def write(
    path: Path,
    commands: Mapping[str, str],
    tasks: Sequence[Cell],
    rows: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Add the rows to the file, with tables beside it; the places that are not measured.

    A cell that the file holds already stays unless it was measured again or is configured
    otherwise now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        return _write(path, commands, tasks, rows)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes results to a folder, and keep others waiting."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _write(
    path: Path,
    commands: Mapping[str, str],
    tasks: Sequence[Cell],
    rows: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    held = json.loads(path.read_text()) if path.exists() else {"cells": [], "missing": []}
    asked, fresh = {cell.place: settings(cell.config) for cell in tasks}, {*map(_place, rows)}
    kept = [
        row
        for row in held["cells"]
        if _place(row) not in fresh and asked.get(_place(row), row["config"]) == row["config"]
    ]
    cells = [*kept, *rows]
    done, wanted = {*map(_place, cells)}, [*held["missing"], *planned(tasks)]
    missing = [*{_place(at): at for at in wanted if _place(at) not in done}.values()]
    begun = {at["protocol"] for at in (*cells, *missing)}
    commands = held.get("commands", {}) | commands
    tables = {name: table(name, cells, missing) for name in PROTOCOLS}  # pages ask for each
    hardware = {"hardware": ", ".join(sorted({row["hardware"] for row in cells}))}
    found = {name: trials(name, cells) for name in PROTOCOLS if PROTOCOLS[name].search}
    grids = {name: grid(tables[name]) for name in PROTOCOLS if name.startswith("table ")}
    whole = {"about": hardware, "commands": commands, **tables, "grids": grids, "trials": found}
    whole |= {"cells": cells, "missing": missing}
    atomic_write_text(path, json.dumps(whole, indent=1) + "\n")  # who reads takes no lock
    path.with_suffix(".md").write_text(markdown(commands, tables, grids, found, missing, begun))
    return missing


def table(
    name: str, cells: Sequence[Mapping[str, Any]], missing: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The rows of a protocol by label; what is not measured says so."""
    protocol = PROTOCOLS[name]
    split, metric = protocol.metric
    own = [row for row in (*cells, *missing) if row["protocol"] == name and row["seed"] != SEARCH]
    every = own or [
        {"student": student, "teacher": teacher, "row": row}
        for teacher in protocol.teachers or (UNTAUGHT,)
        for student in protocol.student
        for row in protocol.methods
    ]
    rank = {row: place for place, row in enumerate(["teachers", *protocol.methods])}
    rank |= {row: rank[of] for row, of in protocol.agreed.items()}
    every.sort(key=lambda row: (row["student"] != "idle", rank.get(row["row"], len(rank))))
    entries = {}
    for row in every:
        key = tuple(row[part] for part in ("student", "teacher", "row"))
        group = [one for one in cells if one["protocol"] == name and _group(one) == key]
        values = [one["metrics"][split][metric] for one in group]
        entry = dict(zip(("student", "teacher", "method"), key, strict=True))
        entry["measured"] = mean(values) if values else "not measured"
        entry["sd"] = stdev(values) if len(values) > 1 else None
        entry |= {"seeds": len(values), "published": protocol.known.get(row["row"])}
        entries[", ".join(key)] = entry | _cost(group)
    return entries


def grid(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row a method, a column a student and who teaches it: mean and deviation over seeds.

    The teachers' own values stand in the columns of every student that they teach.
    """
    measured = [entry for entry in entries.values() if not isinstance(entry["measured"], str)]
    students = dict.fromkeys(e["student"] for e in measured if e["student"] != "idle")
    rows: dict[str, dict[str, Any]] = {}
    for entry in measured:
        source = "" if entry["teacher"] == UNTAUGHT else f" from {entry['teacher']}"
        for student in students if entry["student"] == "idle" else (entry["student"],):
            value = {"mean": entry["measured"], "sd": entry["sd"]}
            rows.setdefault(entry["method"], {})[f"{student}{source}"] = value
    return rows


def trials(name: str, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What settings were tried for the rows of a protocol, and what they reach on validation."""
    found, metric = [], PROTOCOLS[name].metric[1]
    for row in cells:
        if row["protocol"] == name and row["seed"] == SEARCH:
            method, number = row["row"].rsplit(" ", 1)
            change = PROTOCOLS[name].search[method][int(number)]
            value = row["metrics"]["valid"][metric]
            place = {"student": row["student"], "teacher": row["teacher"], "method": method}
            found.append(place | {"settings": change, metric: value, "epochs": row["epochs"]})
    return sorted(found, key=lambda one: (one["method"], -one[metric]))


def _cost(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epochs and seconds an epoch, means over seeds; the largest peak of memory.

    Where some cells of a row ran on a CUDA device, the others do not count.
    """
    if not group or "epochs" not in group[0]:
        return {"jobs": max((row["jobs"] for row in group), default=None)}
    on_cards = [row for row in group if "cuda" in row["device"]]
    group, device = (on_cards, "cuda") if on_cards else (group, "host")
    return {
        "epochs": mean(row["epochs"] for row in group),
        "s/epoch": mean(row["seconds_per_epoch"] for row in group),
        "MiB": max(row["peak_memory"][device] for row in group) // 2**20,
        "jobs": max(row["jobs"] for row in group),
    }


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in PLACE)


def _group(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("student", "teacher", "row"))


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result, as JSON gives it back, without where files lie."""
    left_out = ("device", "teachers_from", "data")
    own = {key: value for key, value in config.items() if key not in left_out}
    plain: dict[str, Any] = json.loads(json.dumps(own))
    return plain
