"""All numbers of a suite in one table, with the version of its schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ccdgraph import checkpoint
from ccdgraph.bench.cell import Outcome
from ccdgraph.run import Row
from ccdgraph.run.folder import write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1  # of the columns and of what stands in them
RESULTS, CELLS = "results.parquet", "cells.json"
_VERSION_KEY = b"ccdgraph.results.version"
Place = tuple[str, str, str, str]  # data, protocol, mask, backbone
LABELS = ("cell", "data", "protocol", "mask", "backbone", "strategy", "seed")
H_OF_MEANS = "H of means"
TESTS = (
    "Wilcoxon signed-rank test of LA, RA and H of each user averaged over seeds, z-test of the H "
    "of their means; two-sided, Holm's correction over baselines"
)


class Comparison(NamedTuple):
    """A paired test of a baseline against the reference.

    Args:
        place: data, protocol, mask and backbone.
        reference: a strategy.
        baseline: another one.
        quantity: ``"LA"``, ``"RA"`` or ``"H"`` of each user, or the ``"H of means"`` over users.
        difference: mean over users or difference of both means, reference less baseline.
        users: how many were compared.
        seeds: how many seeds both were averaged over.
        p: of the two-sided Wilcoxon signed-rank test, or of
            :func:`~ccdgraph.bench.paired.lead_of_means`.
        corrected: the same after Holm's correction over the baselines.
    """

    place: Place
    reference: str
    baseline: str
    quantity: str
    difference: float
    users: int
    seeds: int
    p: float
    corrected: float


def labels(outcome: Outcome) -> dict[str, Any]:
    """Which cell it was, by the columns that every row of the results begins with."""
    cell = outcome.cell
    protocol = outcome.about.get("protocol", cell.protocol)
    values = (cell.key, cell.data, protocol, cell.mask, cell.backbone, cell.strategy, cell.seed)
    return dict(zip(LABELS, values, strict=True))


def places(outcomes: Sequence[Outcome]) -> dict[Place, dict[str, list[Outcome]]]:
    """The cells of every table by strategy, in the order given.

    A strategy without a backbone to choose stands beside those of every backbone.
    """
    protocols = {o.cell.data: o.about["protocol"] for o in outcomes if o.status == "finished"}
    groups: dict[Place, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        # What data that bring their own protocol have is known once a cell of them is finished.
        protocol = protocols.get(cell.data, "own") if cell.protocol == "own" else cell.protocol
        place = (cell.data, protocol, cell.mask, cell.backbone)
        groups.setdefault(place, {}).setdefault(cell.strategy, []).append(outcome)
    for place in [place for place in groups if place[3] == "own"]:
        others = [other for other in groups if other[:3] == place[:3] and other != place]
        for other in others:
            groups[other] |= groups[place]
        if others:
            del groups[place]
    order = list(dict.fromkeys(outcome.cell.strategy for outcome in outcomes))
    return {
        place: {name: found[name] for name in order if name in found}
        for place, found in groups.items()
    }


def rows(outcome: Outcome) -> list[Row]:
    """The means of a finished cell, then its costs.

    Costs have the split ``"cost"`` and no tested block: ``seconds`` by stage (as ``scorer``) and
    block, those of shared base models in the group ``"shared"``; ``peak_memory``, ``parameters``
    and ``state_bytes``, with the device or model as ``scorer``.
    """
    about = outcome.about
    last = int(about["data"]["blocks"]) - 1
    costs = []
    for group, seconds in (("own", about["seconds"]), ("shared", outcome.base_seconds)):
        for key, value in seconds.items():
            block, _, stage = key.partition("/")
            costs.append(Row(stage, int(block), -1, "cost", group, "seconds", float(value), 0))
    for metric in ("peak_memory", "parameters"):
        for name, value in about[metric].items():
            costs.append(Row(name, last, -1, "cost", "own", metric, float(value), 0))
    for block, value in about["state_bytes"].items():
        costs.append(Row("", int(block), -1, "cost", "own", "state_bytes", float(value), 0))
    return [*outcome.rows, *costs]


def write_results(
    folder: Path, outcomes: Sequence[Outcome], comparisons: Sequence[Comparison]
) -> None:
    """Writes ``results.parquet``, and ``cells.json``: how each cell ended, and all paired tests."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in (*LABELS, *Row._fields)}
    for outcome in outcomes:
        if outcome.status == "finished":
            place = tuple(labels(outcome).values())
            for row in rows(outcome):
                for name, value in zip(columns, (*place, *row), strict=True):
                    columns[name].append(value)
    table = pa.table(columns, schema=_schema())
    write_parquet(folder / RESULTS, table)
    about = {
        "version": VERSION,
        "cells": [_about(outcome) for outcome in outcomes],
        "comparisons": [comparison._asdict() for comparison in comparisons],
    }
    checkpoint.atomic_write_text(folder / CELLS, json.dumps(about, indent=1) + "\n")


def read_results(path: str | Path) -> pa.Table:
    """The table in ``results.parquet``.

    Raises:
        ValueError: the file is missing or damaged, or its schema has another version.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise ValueError(f"'{path}' is missing; run the suite first") from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"'{path}' is damaged; remove it and run the suite again") from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(VERSION):
        raise ValueError(
            f"'{path}' has schema version {version}, this release reads {VERSION}; remove it and "
            "run the suite again"
        )
    return table


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = {"cell", "data", "protocol", "mask", "backbone", "strategy"}
    texts |= {"scorer", "split", "group", "metric"}
    kinds = {name: pa.string() if name in texts else pa.int64() for name in (*LABELS, *Row._fields)}
    kinds["value"] = pa.float64()
    return pa.schema(list(kinds.items()), metadata={_VERSION_KEY: str(VERSION).encode()})


def _about(outcome: Outcome) -> dict[str, Any]:
    keys = ("seconds", "peak_memory", "parameters", "state_bytes", "signatures", "served")
    more = {key: outcome.about.get(key) for key in (*keys, "hardware", "versions", "device")}
    fingerprint = outcome.about.get("data", {}).get("fingerprint")
    return {
        **labels(outcome),
        "status": outcome.status,
        "error": outcome.error,
        "fingerprint": fingerprint,
        "base_seconds": outcome.base_seconds,
        **more,
    }
