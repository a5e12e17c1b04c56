"""A teacher search on the command line: every finalist, and which of them are on the frontier."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from ccdgraph.run.frontier import Found, frontier
from ccdgraph.run.tune import METRIC


def frontier_table(found: Sequence[Found]) -> Table:
    """Cost of the teacher, its quality, the student's, and the gain with its prediction."""
    best = frontier(found)
    table = Table(title=f"validation {METRIC} by teacher; * no cheaper one is as good", box=SIMPLE)
    columns = ("parameters", "seconds", "its own", "student's", "gain", "predicted", "")
    for name in ("teacher", *columns):
        table.add_column(name, justify="left" if name == "teacher" else "right")
    for one in sorted(found, key=lambda one: one.seconds):
        table.add_row(
            *(one.teacher, f"{one.parameters:,}", f"{one.seconds:.2f}"),
            *(f"{one.quality:.4f}", f"{one.student:.4f}", f"{one.gain:+.4f}"),
            *(f"{one.predicted:+.4f}", "*" if one in best else ""),
        )
    return table
