"""A static distillation on the command line: progress while it lasts, one table at the end."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ccdgraph.cli.failure import stopped
from ccdgraph.cli.tables import output
from ccdgraph.cli.watch import watching
from ccdgraph.run import DistillConfig, Distilled, Stage, open_stream
from ccdgraph.run import distill as run_distillation
from ccdgraph.run.folder import CONFIG


def distill(config: DistillConfig, folder: Path, *, resume: bool = False) -> None:
    """Runs ``config`` and prints what every model reaches; Ctrl-C says how to go on."""
    stream = open_stream(config.data)
    rows = len(stream[0].train)
    learners = [(f"teacher {m}", one) for m, one in enumerate(config.teachers)]
    learners += [("reference", config.student)] if config.reference else []
    learners.append(("student", config.student))
    stages = [Stage(0, name, one.fit.epochs, rows) for name, one in learners]
    try:
        with watching(stages, Console(stderr=True)) as watcher:
            result = run_distillation(config, folder, stream=stream, resume=resume, watcher=watcher)
    except KeyboardInterrupt:
        stopped("distill", folder / CONFIG)
    output().print(results_table(result))
    for name, value in result.agreement.items():
        typer.echo(f"student and teacher: {name} {value:.4f}")
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    words = ["ccdgraph", "recommend", str(folder), "--user", str(stream.users[0])]
    typer.echo(f"the run is in {folder}; next: {shlex.join(words)}")


def is_online(path: Path) -> bool:
    """Whether the configuration at ``path`` is one of a strategy, which learns a whole stream."""
    try:
        return "strategy" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # what is wrong is said when it is loaded


def results_table(result: Distilled) -> Table:
    """Test metrics of every model, its parameters and seconds an epoch."""
    names = list(result.notes["student"]["metrics"]["test"])
    wanted = [name for name in names if name.split("@")[0] in ("recall", "hit", "ndcg")]
    table = Table(title=f"test, protocol {result.config.measure.protocol}", box=SIMPLE)
    for column in ("model", "parameters", "epochs", "s/epoch", *wanted):
        table.add_column(column, justify="left" if column == "model" else "right")
    for model, notes in result.notes.items():
        metrics = notes["metrics"]["test"]
        values = [f"{metrics[name]:.4f}".removeprefix("0") for name in wanted]
        costs = ["", "", ""]
        if "loss" in notes:
            seconds = f"{notes['seconds_per_epoch']:.3g}"
            costs = [f"{notes['parameters']:,}", str(notes["epochs"]), seconds]
        table.add_row(model, *costs, *values)
    return table
