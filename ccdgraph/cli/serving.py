"""Commands that use what a run serves: ``ccdgraph recommend`` and ``ccdgraph export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ccdgraph.cli.failure import in_one_sentence

commands = typer.Typer()

Format = Literal["safetensors", "parquet", "faiss", "onnx"]  # as in ccdgraph.run.export
_Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


@commands.command(epilog="Example: ccdgraph recommend runs/demo --user c2u0000 --k 10")
@in_one_sentence
def recommend(
    folder: _Run,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="User, as in the data.")
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option("--item", metavar="ID", help="Item of a new user; repeat.")
    ] = None,
    k: Annotated[int, typer.Option(help="Items to list.")] = 20,
) -> None:
    """List the best items for a known user, or for a new one by items: item and score, best first.

    Items that the user has already are left out.
    """
    from ccdgraph.run import Served

    if (user is None) == (not item):
        raise ValueError("name either a known user (--user ID) or items of a new one (--item ID)")
    served = Served.load(folder)
    listed = served.recommend_new(item or [], k) if user is None else served.recommend(user, k)
    for name, score in listed:
        typer.echo(f"{name}\t{score:.6g}")


@commands.command(epilog="Example: ccdgraph export runs/demo --to parquet --folder served")
@in_one_sentence
def export(
    run: _Run,
    to: Annotated[Format, typer.Option("--to", help="What to write.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where it goes.")
    ] = None,
) -> None:
    """Write what a run serves, with its ids, for other programs; to RUN/export/FORMAT by default.

    faiss and onnx need the packages of the extra 'serve'.
    """
    from ccdgraph.run import export

    for path in export(run, to, run / "export" / to if folder is None else folder):
        typer.echo(f"wrote {path}")
