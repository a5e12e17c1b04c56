"""The cells that `citeulike.py` runs, in order, and what their settings depend on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from parts.citeulike_protocols import COST, PROTOCOLS, SEARCH, UNTAUGHT, Cell, Protocol, merged
from parts.citeulike_tables import cell_name


def cells(options: argparse.Namespace) -> list[Cell]:
    """All cells in the order they are wanted: teachers, trials, then a seed of every row a time."""
    found = []
    for name in options.only:
        protocol = PROTOCOLS[name]
        source = "presplit" if protocol.folder == "yelp_ccd" else "split"
        data = {"source": source, "path": str(options.data / protocol.folder)}
        shared = {"data": data, "device": options.device, "reference": False, **protocol.config}
        rows = {k: v for k, v in protocol.methods.items() if k in (options.methods or [k])}
        taught = {k: v for k, v in rows.items() if _taught(v)}
        for teacher, models in protocol.teachers.items():
            models = [{**model, "fit": _fit(model, options)} for model in models]
            # The student of a teachers' cell is not read: one epoch of it.
            idle = {"model": {"backbone": "MF", "dim": 1}, "fit": {"epochs": 1}}
            own = {"seed": 0, "student": idle, "teachers": models, "base_weight": 1.0}
            cell = Cell(name, "teachers", "idle", teacher, 0, shared | own)
            found += [cell] if taught else []
            found += _students(name, protocol, taught, cell, shared, options)
        alone = {k: v for k, v in rows.items() if k not in taught}
        found += _students(name, protocol, alone, None, shared, options)
    return sorted(found, key=_order)


def _taught(own: Mapping[str, Any]) -> bool:
    return not {*own.get("distill", [])} <= {"none", "concf"}


def _order(cell: Cell) -> tuple[bool, bool, bool, int, int]:
    length = sum(COST.get(method, 0) for method in cell.config.get("distill", []))
    long = length >= 10  # lest the last of them outlast everything else
    return cell.row != "teachers", cell.seed != SEARCH, not long, cell.seed, -length


def _students(
    name: str,
    protocol: Protocol,
    methods: Mapping[str, Mapping[str, Any]],
    teachers: Cell | None,
    shared: Mapping[str, Any],
    options: argparse.Namespace,
) -> Iterator[Cell]:
    given, teacher, needs = {}, UNTAUGHT, ()
    if teachers is not None:
        teacher, needs = teachers.teacher, (teachers.name,)
        given = {"teachers_from": str(options.to / teachers.name)}
    for row, own in methods.items():
        for student, model in protocol.student.items():
            config = merged({**shared, **given, "student": model}, own)
            config["student"]["fit"] = _fit(config["student"], options)
            trials = []
            for number, change in enumerate(protocol.search.get(row, ())):
                place = (name, f"{row} {number}", student, teacher, SEARCH)
                tried = merged(merged(config, change), protocol.tried) | {"seed": SEARCH}
                tried["student"]["fit"] = _fit(tried["student"], options)
                trials.append(Cell(*place, tried, needs, change=change))
            yield from trials
            after = (*needs, *(cell.name for cell in trials))
            for seed in range(options.seeds):
                place = (name, row, student, teacher, seed)
                own_trials = tuple(cell.name for cell in trials)
                yield Cell(*place, config | {"seed": seed}, after, trials=own_trials)


def _fit(model: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    fit = model["fit"] | {"record": not options.step_by_step}
    if options.epochs:
        fit["epochs"] = min(options.epochs, fit["epochs"])
    return fit


def settled(tasks: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Cells with the settings of the best of their trials, where all of those are in ``rows``."""
    by_name = {cell.name: cell for cell in tasks}
    values = {
        cell_name(row): row["metrics"]["valid"][PROTOCOLS[row["protocol"]].metric[1]]
        for row in rows
    }
    return [
        replace(cell, config=merged(cell.config, by_name[max(cell.trials, key=values.get)].change))
        if cell.trials and {*cell.trials} <= {*values}
        else cell
        for cell in tasks
    ]


def left(tasks: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Cells without a row, and the teachers that they need."""
    measured = {cell_name(row) for row in rows}
    open_cells = [cell for cell in tasks if cell.row != "teachers" and cell.name not in measured]
    needed = {name for cell in open_cells for name in cell.needs}
    return [c for c in tasks if c in open_cells or (c.row == "teachers" and c.name in needed)]
