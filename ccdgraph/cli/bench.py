"""A suite on the command line: a line for every task, the tables at the end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import typer

from ccdgraph.bench import cells, load_suite, run_suite
from ccdgraph.bench.results import RESULTS
from ccdgraph.bench.run import LATEX, MARKDOWN
from ccdgraph.cli.failure import INTERRUPTED, fail

SOME_FAILED = 1


def bench(
    path: Path,
    folder: Path,
    jobs: int | None,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    limit: float | None = None,
) -> None:
    """Runs the suite in ``path`` and prints its tables; Ctrl-C says how to go on."""
    suite = load_suite(path, overrides)
    typer.echo(f"{suite.name}: {len(cells(suite))} cells in {folder}", err=True)
    try:
        outcomes = run_suite(suite, folder, jobs=jobs, on_task=_tell, only=only, limit=limit)
    except KeyboardInterrupt:
        words = ["ccdgraph", "bench", str(path), "--to", str(folder)]
        words += [] if jobs is None else ["--jobs", str(jobs)]
        words += [word for change in overrides for word in ("--set", change)]
        words += [word for name in only for word in ("--only", name)]
        fail(f"stopped; go on with: {shlex.join(words)}", INTERRUPTED)
    typer.echo((folder / MARKDOWN).read_text(encoding="utf-8"))
    typer.echo(f"{RESULTS}, {MARKDOWN} and {LATEX} are in {folder}")
    left = sum(outcome.status == "missing" for outcome in outcomes)
    if left:
        typer.echo(f"{left} of {len(outcomes)} cells are not run yet", err=True)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed:
        fail(f"{failed} of {len(outcomes)} cells failed; run again to retry them", SOME_FAILED)


def _tell(label: str, succeeded: bool, seconds: float) -> None:
    typer.echo(f"{label}: {'done' if succeeded else 'failed'}, {seconds:.1f} s", err=True)
