"""The command line: ``ccdgraph run``, ``bench``, ``report`` and the other commands.

What needs torch is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccdgraph import __version__
from ccdgraph.cli.failure import in_one_sentence

if TYPE_CHECKING:
    from ccdgraph.data import Stream

app = typer.Typer(
    help="Continual collaborative distillation for recommendation on an evolving graph.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Look at data, and convert it.", no_args_is_help=True)
app.add_typer(data, name="data")

_Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: ccd.student.dim=16."),
]
_DataOverrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of [data]: user=uid, num_blocks=3."),
]
_To = Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Folder of the run.")]
_Source = Annotated[Path, typer.Argument(metavar="PATH", help="File, or folder of blocks.")]


def main() -> None:
    """Runs the command line; a configuration may name modules of the current directory."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    # Threads that spin for work starve one another as soon as another process needs a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # torch says so once, of the format that every graph is multiplied in
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
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


@app.command()
@in_one_sentence
def demo(to: _To = None, overrides: _Overrides = None) -> None:
    """Run CCD on a built-in stream: LightGCN, MF and MultVAE teach a small LightGCN."""
    from ccdgraph.cli.demo import demo_config
    from ccdgraph.cli.learn import learn

    config = demo_config(overrides or [])
    folder = Path(tempfile.mkdtemp(prefix="ccdgraph-demo-")) if to is None else to
    learn(config, folder)


@app.command()
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


@app.command()
@in_one_sentence
def bench(
    suite: Annotated[Path, typer.Argument(metavar="SUITE.toml", help="What to compare.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Its folder.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time, each in a process of its own.")
    ] = None,
) -> None:
    """Run a suite of strategies; the files go to runs/SUITE unless --to names a folder.

    A suite that was stopped goes on when the same command is given again.
    """
    from ccdgraph.cli.bench import bench

    bench(suite, Path("runs") / suite.stem if to is None else to, jobs)


@app.command()
@in_one_sentence
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_SUITE", help="Folder of either.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE.html", help="The file.")] = None,
) -> None:
    """Show a run or a suite as one HTML file, report.html in its folder unless --to names one."""
    from ccdgraph.report import write_report

    typer.echo(f"wrote {write_report(folder, to)}")


@app.command()
@in_one_sentence
def recommend(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    user: Annotated[str, typer.Option(metavar="ID", help="User, as in the data.")],
    k: Annotated[int, typer.Option(help="Items to list.")] = 20,
) -> None:
    """List the best items that a user does not have yet: item and score a line, best first."""
    from ccdgraph.run import recommend

    for item, score in recommend(folder, user, k):
        typer.echo(f"{item}\t{score:.6g}")


@app.command()
@in_one_sentence
def doctor() -> None:
    """Say what is installed, what computes, and what would make it faster."""
    from ccdgraph.cli.doctor import advice, findings

    width = max(len(name) for name, _ in findings())
    for name, found in findings():
        typer.echo(f"{name:<{width}}  {found}")
    typer.echo("")
    for sentence in advice():
        typer.echo(f"faster: {sentence}")


@data.command("describe")
@in_one_sentence
def describe_data(path: _Source, overrides: _DataOverrides = None) -> None:
    """Count what each block of a stream holds."""
    from ccdgraph.cli.tables import output, stream_table
    from ccdgraph.data import fingerprint

    stream = _open(path, overrides)
    output().print(stream_table(stream))
    typer.echo(f"protocol {stream.protocol}, fingerprint {fingerprint(stream)}")


@data.command("convert")
@in_one_sentence
def convert_data(
    path: _Source,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder.")],
    overrides: _DataOverrides = None,
) -> None:
    """Write a stream in the native format, split and filtered once and for all."""
    from ccdgraph.data import write_stream

    stream = _open(path, overrides)
    write_stream(stream, folder)
    typer.echo(f"wrote {len(stream)} blocks; run them with data.source=stream data.path={folder}")


def _open(path: Path, overrides: list[str] | None) -> Stream:
    from ccdgraph.config import apply_override, from_dict
    from ccdgraph.run import DataConfig, detect_source, open_stream

    table: dict[str, Any] = {"source": detect_source(path), "path": str(path)}
    for override in overrides or []:
        apply_override(table, override)
    return open_stream(from_dict(DataConfig, table))
