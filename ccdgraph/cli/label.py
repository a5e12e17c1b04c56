"""Labels on the command line: what a teacher wrote, and what it costs a student."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from ccdgraph.distill.labels import LabelPart
from ccdgraph.run.label import amortised


def parts_table(parts: Sequence[LabelPart]) -> Table:
    """A line for each part: whom it is for and what it holds."""
    table = Table(title="labels", box=SIMPLE)
    for name in ("version", "block", "users", "coverage", "labels", "MB", "forwards", "seconds"):
        table.add_column(name, justify="left" if name == "version" else "right")
    for part in parts:
        table.add_row(
            *(part.version, f"{part.block}", f"{part.users:,}", f"{part.coverage:.1%}"),
            *(f"{part.rows:,}", f"{part.size / 1e6:.2f}"),
            *(f"{part.cost.get('forwards', 0):,.0f}", f"{part.cost.get('seconds', 0):.2f}"),
        )
    return table


def cost_line(parts: Sequence[LabelPart], students: int) -> str:
    """The cost of the teacher once, and of each of its students."""
    cost = amortised(parts, students)
    return (
        f"{cost['labels']:,.0f} labels, {cost['teacher forwards']:,.0f} teacher forwards, "
        f"{cost['megabytes']:.2f} MB, {cost['seconds']:.2f} s; for each of {students} students "
        f"{cost['seconds a student']:.2f} s"
    )
