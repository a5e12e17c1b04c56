"""The command line: ``ccdgraph run``, ``bench``, ``report`` and the other commands.

What needs torch is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ccdgraph import __version__
from ccdgraph.cli.data import commands as data_commands
from ccdgraph.cli.failure import in_one_sentence
from ccdgraph.cli.new import Kind
from ccdgraph.cli.serving import commands as serving_commands

app = typer.Typer(
    help="Continual collaborative distillation for recommendation on an evolving graph.",
    epilog="Example: ccdgraph demo --to runs/demo; ccdgraph COMMAND --help shows one of each",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_commands, name="data")
app.add_typer(serving_commands)  # without a name: commands of this level

_Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: ccd.student.dim=16."),
]
_To = Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Folder of the run.")]


def main() -> None:
    """Runs the command line; a configuration may name modules of the current directory."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    # Threads that spin for work starve one another as soon as another process needs a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # of the format that every graph is multiplied in, and of what PyG compiles when it is imported
    for message in (
        "Sparse CSR tensor support is in beta",
        "Sparse invariant checks are implicitly",
        "`torch.jit.script` is deprecated",
    ):
        warnings.filterwarnings("ignore", message)
    app()


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ccdgraph {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command("demo", epilog="Example: ccdgraph demo --to runs/demo --set seed=1")
@in_one_sentence
def demo_command(to: _To = None, overrides: _Overrides = None) -> None:
    """Run CCD on a built-in stream: LightGCN, MF and MultVAE teach a small LightGCN."""
    from ccdgraph.cli.demo import demo_config
    from ccdgraph.cli.learn import learn

    config = demo_config(overrides or [])
    folder = Path(tempfile.mkdtemp(prefix="ccdgraph-demo-")) if to is None else to
    learn(config, folder)


@app.command(epilog="Example: ccdgraph run benchmarks/configs/yelp.toml --set seed=1 --resume")
@in_one_sentence
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to run.")],
    overrides: _Overrides = None,
    to: _To = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last finished stage.")
    ] = False,
) -> None:
    """Run a configuration; the files go to runs/CONFIG unless --to names a folder."""
    from ccdgraph.cli.learn import learn
    from ccdgraph.config import load
    from ccdgraph.run import RunConfig

    folder = Path("runs") / config.stem if to is None else to
    learn(load(RunConfig, config, overrides or []), folder, resume=resume)


@app.command(
    "distill", epilog="Example: ccdgraph distill CONFIG.toml --set student.model.dim=8 --resume"
)
@in_one_sentence
def distill_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to distil.")],
    overrides: _Overrides = None,
    to: _To = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Do not train again what is trained.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(metavar="STORE", help="Labels to learn from.")
    ] = None,
) -> None:
    """Distil teachers into a student on one split; the files go to runs/CONFIG without --to.

    With --labels the teacher is a label store; a CONFIG with strategy = "Online" then learns the
    whole stream from it.
    """
    from ccdgraph.cli.distill import distill, is_online
    from ccdgraph.cli.learn import learn
    from ccdgraph.config import load
    from ccdgraph.run import DistillConfig, RunConfig

    folder = Path("runs") / config.stem if to is None else to
    changes, online = list(overrides or []), is_online(config)
    if labels is not None:
        changes.append(f"{'settings.labels' if online else 'lists_from'}={json.dumps(str(labels))}")
    if online:
        learn(load(RunConfig, config, changes), folder, resume=resume)
    else:
        distill(load(DistillConfig, config, changes), folder, resume=resume)


@app.command(
    "bench",
    epilog="Example: ccdgraph bench benchmarks/configs/yelp_suite.toml --to runs/yelp --jobs 3",
)
@in_one_sentence
def bench_command(
    suite: Annotated[Path, typer.Argument(metavar="SUITE.toml", help="What to compare.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Its folder.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time, each in a process of its own.")
    ] = None,
    overrides: _Overrides = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this strategy; may be repeated.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(help="Begin no cell after so many seconds.")
    ] = None,
) -> None:
    """Run a suite of strategies; the files go to runs/SUITE unless --to names a folder.

    A suite that was stopped goes on when the same command is given again.
    """
    from ccdgraph.cli.bench import bench

    folder = Path("runs") / suite.stem if to is None else to
    bench(suite, folder, jobs, overrides or [], only=only or [], limit=limit)


@app.command("tune-teacher", epilog="Example: ccdgraph tune-teacher SEARCH.toml --to search")
@in_one_sentence
def tune_teacher(
    config: Annotated[Path, typer.Argument(metavar="SEARCH.toml", help="What to try.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of the journal.")],
    overrides: _Overrides = None,
) -> None:
    """Search for the teacher that is worth its cost to the student; goes on where it stopped."""
    from ccdgraph.cli.tables import output
    from ccdgraph.cli.tune import frontier_table
    from ccdgraph.config import load
    from ccdgraph.run.tune import TuneConfig, tune_teacher

    output().print(frontier_table(tune_teacher(load(TuneConfig, config, overrides or []), to)))


@app.command(
    "label", epilog="Example: ccdgraph label runs/teacher --to runs/labels --lag 0 --lag 1"
)
@in_one_sentence
def label_command(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run with keep_states.")],
    to: Annotated[Path, typer.Option("--to", metavar="STORE", help="Folder of the labels.")],
    teacher: Annotated[str, typer.Option(help="Name of the teacher in the store.")] = "teacher",
    scorer: Annotated[str | None, typer.Option(help="Scorer of the run that labels.")] = None,
    lag: Annotated[list[int] | None, typer.Option(help="Blocks behind; may be repeated.")] = None,
    freeze: Annotated[int | None, typer.Option(help="Last block that the labels know.")] = None,
    k: Annotated[int, typer.Option(help="Items listed for a user.")] = 100,
    half: Annotated[bool, typer.Option("--half", help="Store scores as float16.")] = False,
    students: Annotated[int, typer.Option(help="Students that share the cost.")] = 1,
) -> None:
    """Label every block of a run's stream by its learner as it was before that block."""
    from ccdgraph.cli.label import cost_line, parts_table
    from ccdgraph.cli.tables import output
    from ccdgraph.run.label import amortised, label_run

    amortised((), students)  # refused before the work, not after it
    label = partial(label_run, folder, to, teacher=teacher, scorer=scorer)
    parts = label(lags=lag or (0,), freeze=freeze, k=k, half=half)
    output().print(parts_table(parts))
    typer.echo(cost_line(parts, students))


@app.command(epilog="Example: ccdgraph report runs/demo --to demo.html")
@in_one_sentence
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a run or a suite.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE.html", help="The file.")] = None,
) -> None:
    """Show a run, a distillation or a suite as one HTML file, its report.html without --to."""
    from ccdgraph.report import write_report

    typer.echo(f"wrote {write_report(folder, to)}")


@app.command("doctor", epilog="Example: ccdgraph doctor")
@in_one_sentence
def doctor_command() -> None:
    """Say what is installed, what computes, and what would make it faster."""
    from ccdgraph.cli.doctor import advice, findings

    width = max(len(name) for name, _ in findings())
    for name, found in findings():
        typer.echo(f"{name:<{width}}  {found}")
    typer.echo("")
    for sentence in advice():
        typer.echo(f"faster: {sentence}")


@app.command("new", epilog="Example: ccdgraph new backbone MyGAT")
@in_one_sentence
def new_command(
    kind: Annotated[Kind, typer.Argument(help="What the class is.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the class: MyGAT.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where it goes.")] = Path(),
) -> None:
    """Write a backbone, term or strategy to start from, which works, and its test."""
    from ccdgraph.cli.new import next_commands, write_new

    path, test = write_new(kind, name, to)
    typer.echo(f"wrote {path} and {test}; next:")
    for line in next_commands(kind, name, test):
        typer.echo(f"    {line}")
