"""One HTML page from the runs in a folder."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ccdgraph import __version__, checkpoint
from ccdgraph.report import distilled, figures, origin, tables
from ccdgraph.report.content import Content, Group
from ccdgraph.report.drawing import Panel, style
from ccdgraph.report.reading import read_content, read_distillation
from ccdgraph.report.tables import Table, pieces

REPORT = "report.html"
WITH_LEGEND = ("curves", "newcomers", "costs")


@dataclass(frozen=True)
class Section:
    """What the page shows of a group: tables, panels, and the legends of the figures."""

    name: str
    group: Group
    legends: dict[str, list[tuple[str, str]]]
    curves: list[Panel]
    heat_maps: list[Panel]
    newcomers: list[Panel]
    costs: list[Panel]
    stages: list[Panel]
    tables: dict[str, list[Table]]
    matrices: list[Table]


def write_report(folder: str | Path, to: str | Path | None = None) -> Path:
    """Writes the report of a run, a distillation or a suite; the path of the file.

    Args:
        folder: of the run, the distillation or the suite.
        to: the file; by default ``report.html`` in the folder.

    Raises:
        ValueError: the folder cannot be reported on, or the extra ``report`` is not installed.
    """
    for package in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"a report needs {package}; pip install 'ccdgraph[report]'")
    path = Path(folder) / REPORT if to is None else Path(to)
    about = read_distillation(Path(folder))
    page = render(read_content(folder)) if about is None else distilled.render(about, __version__)
    checkpoint.atomic_write_text(path, page)
    return path


def render(content: Content) -> str:
    """The page as text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["svg"] = Markup
    with style():
        sections = [_section(group, f"g{place}") for place, group in enumerate(content.groups)]
    text: str = environment.get_template("page.html.j2").render(
        content=content,
        sections=sections,
        missing=origin.missing(content),
        settings=origin.settings(content),
        machines=origin.machines(content),
        css=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        version=__version__,
    )
    return text


def _section(group: Group, name: str) -> Section:
    heat_maps = figures.heat_maps(group, name)
    return Section(
        name=name,
        group=group,
        legends={key: figures.legend(group, f"{name}-{key}") for key in WITH_LEGEND},
        curves=figures.curves(group, name),
        heat_maps=heat_maps,
        newcomers=figures.newcomers(group, name),
        costs=figures.costs(group, name),
        stages=figures.stage_seconds(group, name),
        tables={
            "results": pieces(tables.results(group)),
            "tests": pieces(tables.tests(group)),
            "blocks": pieces(tables.by_block(group)),
            "newcomers": pieces(tables.newcomers(group)),
            "costs": pieces(tables.costs(group)),
            "seconds": pieces(tables.seconds(group)),
            "signatures": pieces(tables.signatures(group)),
        },
        matrices=[
            part
            for method in group.methods
            if heat_maps
            for part in pieces(tables.accuracy(group, method))
        ],
    )
