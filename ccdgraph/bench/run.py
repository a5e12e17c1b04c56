"""A whole suite in one folder: its cells, its results, its tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ccdgraph import checkpoint
from ccdgraph.bench.cell import Outcome, outcome, tasks
from ccdgraph.bench.paired import compare
from ccdgraph.bench.results import RESULTS, read_results, write_results
from ccdgraph.bench.schedule import OnTask, locked, work
from ccdgraph.bench.suite import SuiteConfig, cells
from ccdgraph.bench.tables import latex, markdown
from ccdgraph.config import to_toml

ABOUT, CONFIG, MARKDOWN, LATEX = "suite.json", "suite.toml", "results.md", "results.tex"


def run_suite(
    suite: SuiteConfig,
    folder: str | Path,
    *,
    jobs: int | None = None,
    on_task: OnTask | None = None,
    only: Sequence[str] = (),
    limit: float | None = None,
) -> list[Outcome]:
    """Runs what is missing of a suite and writes its results; a cell that fails stops no other.

    Cells are found again by a hash of their configuration, so a suite that was stopped goes on,
    and one that grew runs what is new. Failed cells are tried again.

    Args:
        suite: the suite.
        folder: where; of this suite alone.
        jobs: processes at a time; ``None`` runs in this process.
        on_task: is told of every task that has ended.
        only: strategies and variants to run; of the others what there is counts. By default all.
        limit: seconds after which no cell is begun.

    Raises:
        ValueError: the suite cannot be read as cells, ``only`` names what it does not have, or the
            folder is of another suite, of another version, or in use.
    """
    if find_spec("scipy") is None:
        raise ValueError("a suite needs scipy for its tests; pip install 'ccdgraph[bench]'")
    folder, found = Path(folder), cells(suite)
    wanted = [cell for cell in found if not only or cell.strategy in only]
    if unknown := set(only) - {cell.strategy for cell in found}:
        names = ", ".join(dict.fromkeys(cell.strategy for cell in found))
        raise ValueError(f"'only' names {sorted(unknown)[0]!r}, expected some of {names}")
    _check_folder(folder, suite.name)
    with locked(folder):
        checkpoint.atomic_write_text(folder / ABOUT, json.dumps({"name": suite.name}) + "\n")
        checkpoint.atomic_write_text(folder / CONFIG, to_toml(suite))
        work(tasks(wanted, folder), jobs, on_task, limit)
        outcomes = [outcome(cell, folder) for cell in found]
        _check_data(outcomes)
        _write(suite, folder, outcomes)
    return outcomes


def _check_folder(folder: Path, name: str) -> None:
    if (folder / RESULTS).exists():
        read_results(folder / RESULTS)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    path = folder / ABOUT
    if not path.exists():
        raise ValueError(f"'{folder}' is not empty and holds no suite; name another folder")
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); name another folder") from error
    if begun != name:
        raise ValueError(f"'{folder}' holds the suite '{begun}', not '{name}'; name another folder")


def _check_data(outcomes: Sequence[Outcome]) -> None:
    """Refuses cells of the same data whose contents have changed in between."""
    known: dict[tuple[str, str], Outcome] = {}
    for one in outcomes:
        if one.status == "finished":
            first = known.setdefault((one.cell.data, one.cell.protocol), one)
            if one.about["data"]["fingerprint"] != first.about["data"]["fingerprint"]:
                raise ValueError(
                    f"the data '{one.cell.data}' have changed between the cells "
                    f"'{first.cell.label}' and '{one.cell.label}'; remove the older of "
                    f"cells/{first.cell.key} and cells/{one.cell.key}"
                )


def _write(suite: SuiteConfig, folder: Path, outcomes: Sequence[Outcome]) -> None:
    metric = f"recall@{suite.ks[0]}"
    tests = compare(outcomes, folder, suite.reference)
    write_results(folder, outcomes, tests)
    checkpoint.atomic_write_text(folder / MARKDOWN, markdown(suite.name, outcomes, tests, metric))
    checkpoint.atomic_write_text(folder / LATEX, latex(outcomes, tests, metric))
