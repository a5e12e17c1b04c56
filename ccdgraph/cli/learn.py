"""A run on the command line: progress while it lasts, tables at the end, a way back if stopped."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import typer
from rich.console import Console

from ccdgraph.cli.failure import stopped
from ccdgraph.cli.tables import matrix_table, output
from ccdgraph.cli.watch import watching
from ccdgraph.run import RunConfig, open_stream, plan
from ccdgraph.run import run as run_stream
from ccdgraph.run.folder import CONFIG


def learn(config: RunConfig, folder: Path, *, resume: bool = False) -> None:
    """Runs ``config`` and prints its accuracy matrices; Ctrl-C says how to go on."""
    started = time.perf_counter()
    stream = open_stream(config.data)
    try:
        with watching(plan(config, stream), Console(stderr=True)) as watcher:
            result = run_stream(config, folder, stream=stream, resume=resume, watcher=watcher)
    except KeyboardInterrupt:
        stopped("run", folder / CONFIG)
    for scorer in result.scorers:
        output().print(matrix_table(result, scorer))
    typer.echo(f"mask {config.mask}, protocol {stream.protocol}; block 0 counts in LA, RA and H")
    typer.echo(f"{time.perf_counter() - started:.0f} s; the run is in {folder}")
    words = ["ccdgraph", "recommend", str(folder), "--user", str(stream.users[0])]
    typer.echo(f"next: {shlex.join(words)}")
