"""Tables of results and of data."""

from __future__ import annotations

import math

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ccdgraph.data import Stream, describe
from ccdgraph.run import RunResult


def output() -> Console:
    """Where tables go: stdout, and never cut to fit."""
    return Console(width=1000)


def matrix_table(result: RunResult, scorer: str) -> Table:
    """The headline metric on test block j after learning block k, with LA, RA and H."""
    matrix = result.matrix(scorer)
    blocks = range(result.num_blocks)
    table = Table(title=f"{scorer}: {result.config.evaluate.headline}", box=SIMPLE)
    for name in ("after", *(f"D{j}" for j in blocks), "LA", "RA", "H"):
        table.add_column(name, justify="right")
    for learnt in range(result.learnt + 1):
        means = (matrix.learning_average(learnt), matrix.retained_average(learnt))
        values = (*matrix.values[learnt].tolist(), *means, matrix.h_mean(learnt))
        shown = ("" if math.isnan(v) else f"{v:.4f}".removeprefix("0") for v in values)
        table.add_row(f"D{learnt}", *shown)
    return table


def stream_table(stream: Stream) -> Table:
    """The counts and dates of every block."""
    table = Table(title=stream.name, box=SIMPLE)
    columns = ("block", "train", "valid", "test", "users", "new", "known", "items", "new", "known")
    for name in (*columns, "from", "to"):
        table.add_column(name, justify="right")
    for block in describe(stream):
        counts = (
            *(block.index, block.train, block.valid, block.test),
            *(block.users, block.new_users, block.num_users),
            *(block.items, block.new_items, block.num_items),
        )
        table.add_row(*(f"{count:,}" for count in counts), block.start or "", block.end or "")
    return table
