"""``ccdgraph data``: looking at data, and converting it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccdgraph.cli.failure import in_one_sentence

if TYPE_CHECKING:
    from ccdgraph.data import Stream

commands = typer.Typer(
    help="Look at data, and convert it.",
    epilog="Example: ccdgraph data describe events.csv",
    no_args_is_help=True,
)

_Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of [data]: user=uid, num_blocks=3."),
]
_Source = Annotated[Path, typer.Argument(metavar="PATH", help="File, or folder of blocks.")]


@commands.command(
    epilog="Example: ccdgraph data describe events.csv --set user=uid --set num_blocks=3"
)
@in_one_sentence
def describe(path: _Source, overrides: _Overrides = None) -> None:
    """Count what each block of a stream holds."""
    from ccdgraph.cli.tables import output, stream_table
    from ccdgraph.data import fingerprint

    stream = _open(path, overrides)
    output().print(stream_table(stream))
    typer.echo(f"protocol {stream.protocol}, fingerprint {fingerprint(stream)}")


@commands.command(epilog="Example: ccdgraph data convert ml-1m.zip ml --set source=movielens-1m")
@in_one_sentence
def convert(
    path: _Source,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder.")],
    overrides: _Overrides = None,
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
