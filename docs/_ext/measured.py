"""Numbers in the documentation, read from ``benchmarks/results`` when it is built.

* ``.. measured:: FILE.json / key / key`` is a table of what lies there: a row for every entry and
  a column for every key of the entries. ``:digits:`` rounds, ``:columns:`` picks columns (with
  ``;`` between), ``:rows:`` heads the first column. Command and hardware follow from ``about``.
* ``:measured:`FILE.json / key / key``` is a single number; ``FILE.json / key % 3`` has 3 digits;
  ``FILE.json`` alone says where the file is.

What has no file is "not measured yet". ``results_files`` says what other files hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from results_files import MISSING, content
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def look_up(path: str, results: Path = RESULTS) -> tuple[Any, dict[str, Any]] | None:
    """What lies at ``FILE.json / key / key``, and what the file says of itself."""
    name, *keys = (part.strip() for part in path.split(" / "))
    if not (results / name).exists():
        return None
    tables = content(results / name)
    found: Any = tables
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return found, tables.get("about", {})


def shown(value: Any, digits: int) -> str:
    """A number, a mean with its deviation, or text."""
    if isinstance(value, dict) and "mean" in value:
        deviation = value.get("sd")
        tail = "" if deviation is None else f" ±\N{NO-BREAK SPACE}{shown(deviation, digits)}"
        return shown(value["mean"], digits) + tail
    if isinstance(value, float):  # a p that is no zero does not look like one
        small = 0 < abs(value) < 0.5 * 10**-digits
        return f"{value:.0e}" if small else f"{value:,.{digits}f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)


def told_seeds(about: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """``about`` with the seeds of the rows, where they have a number of their own."""
    own = {row["seeds"] for row in found.values() if "seeds" in row}
    if not own:
        return about
    return {**about, "seeds": f"up to {max(own)}" if len(own) > 1 else max(own)}


def origin(about: dict[str, Any]) -> str:
    """One sentence on where numbers come from."""
    given = [about[key] for key in ("metric", "hardware") if key in about]
    parts = ["; ".join(one) if isinstance(one, list) else str(one) for one in given]
    if "seeds" in about:
        one = about["seeds"] == 1
        parts.append("one seed" if one else f"{about['seeds']} seeds, mean ± standard deviation")
    if "torch" in about.get("versions", {}):
        parts.append(f"torch {about['versions']['torch']}")
    return "; ".join(parts)


def table(found: dict[str, Any], columns: Sequence[str], first: str, digits: int) -> nodes.table:
    """A row for every entry."""
    grid = [[first, *columns]]
    grid += [
        [name, *(shown(row.get(column), digits) for column in columns)]
        for name, row in found.items()
    ]
    group = nodes.tgroup(cols=len(columns) + 1)
    group += [nodes.colspec(colwidth=1) for _ in grid[0]]
    group += nodes.thead("", _row(grid[0]))
    group += nodes.tbody("", *map(_row, grid[1:]))
    return nodes.table("", group, classes=["measured"])


def _row(cells: Iterable[str]) -> nodes.row:
    return nodes.row("", *map(_entry, cells))


def _entry(cell: str) -> nodes.entry:
    if cell.startswith("{"):  # settings, whose quotes stay as they are
        text = nodes.paragraph("", "", nodes.literal(text=cell))
        return nodes.entry("", text, classes=["settings"])
    return nodes.entry("", nodes.paragraph(text=cell))


class Measured(SphinxDirective):
    """A table of a results file."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {
        "digits": directives.nonnegative_int,
        "columns": directives.unchanged,
        "rows": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        """The table, or that there is none yet."""
        self.env.note_dependency(str(RESULTS / self.arguments[0].split(" / ")[0]))
        looked_up = look_up(self.arguments[0])
        if looked_up is None:
            absent = f"{MISSING.capitalize()}: {self.arguments[0]}."
            return [nodes.paragraph("", "", nodes.emphasis(text=absent))]
        found, about = looked_up
        every = dict.fromkeys(key for row in found.values() for key in row)
        asked = self.options.get("columns")
        columns = [name.strip() for name in asked.split(";")] if asked else list(every)
        made = table(found, columns, self.options.get("rows", ""), self.options.get("digits", 4))
        source = origin(told_seeds(about, found))
        note = nodes.paragraph("", source)
        if "command" in about:
            note += [
                nodes.Text("; " if source else ""),
                nodes.literal(text=about["command"]),
            ]
        return [made, nodes.container("", note, classes=["origin"])]


class MeasuredNumber(SphinxRole):
    """A number of a results file."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number, or that it is not there yet."""
        path, _, digits = self.text.partition(" % ")
        self.env.note_dependency(str(RESULTS / path.split(" / ")[0]))
        found = look_up(path)
        text = MISSING if found is None else shown(found[0], int(digits or 4))
        if found is not None and " / " not in path:
            text = f"in benchmarks/results/{path}"
        return [nodes.inline(text=text, classes=["measured"])], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers both."""
    app.add_directive("measured", Measured)
    app.add_role("measured", MeasuredNumber())
    return {"parallel_read_safe": True, "version": "1"}
