"""The figures of a report, each a list of panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ccdgraph.report.content import Group, Method
from ccdgraph.report.drawing import INK, PAPER, Panel, canvas, look, to_ornament, to_panel
from ccdgraph.report.series import (
    Mean,
    Series,
    brief,
    learning_seconds,
    matrix,
    newest,
    parameters,
    quantity,
    stages,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONG = {"LA": "learning average", "RA": "retained average", "H": "harmonic mean of LA and RA"}
ANNOTATED = 9  # blocks up to which every cell of a heat map shows its number


def curves(group: Group, name: str) -> list[Panel]:
    """LA, RA and H over blocks; only what the protocol measures."""
    drawn = [
        _curve(group, f"{name}-{key}", f"{key}, {words}", partial(quantity, name=key))
        for key, words in LONG.items()
        if key in group.summaries
    ]
    return [panel for panel in drawn if panel is not None]


def newcomers(group: Group, name: str) -> list[Panel]:
    """Accuracy of new users and on new items, right after the block that they came with."""
    drawn = [
        _curve(group, f"{name}-{key}", key.replace("_", " "), partial(newest, group=key))
        for key in ("new_users", "new_items")
    ]
    return [panel for panel in drawn if panel is not None]


def heat_maps(group: Group, name: str) -> list[Panel]:
    """The accuracy matrix of every method, on one scale; none where only a diagonal is measured."""
    found = [(method, matrix(method)) for method in group.methods]
    known = [e.value for _, rows in found for row in rows for e in row if e is not None]
    if group.main == "LA":
        return []
    limits = (min(known), max(max(known), min(known) + 1e-9))
    return [
        _heat_map(method, rows, limits, f"{name}-heat{place}")
        for place, (method, rows) in enumerate(found)
    ]


def costs(group: Group, name: str) -> list[Panel]:
    """Accuracy against seconds of learning and against parameters."""
    key = group.main
    figure, axes = canvas()
    told = []
    for method in group.methods:
        spent, reached = learning_seconds(method.members), quantity(method, key)
        pairs = [(s, e.value) for s, e in zip(spent, reached, strict=False) if e is not None]
        if not pairs:
            continue
        color, _, line = look(method.index)
        axes.plot(*zip(*pairs, strict=True), color=color, linestyle=line, linewidth=1, alpha=0.7)
        _point(axes, method, pairs[-1][0], reached[len(pairs) - 1])
        told.append(f"{method.name} {pairs[-1][1]:.4f} after {brief(pairs[-1][0])} s")
    _logarithmic(axes)
    axes.set(xlabel="seconds of learning so far", ylabel=key)
    title = f"{key} against seconds"
    panels = [to_panel(figure, f"{name}-seconds", title, _told(title, told))]
    counted = [
        (method, count)
        for method in group.methods
        if (count := parameters(method)) is not None and any(quantity(method, key))
    ]
    if counted:
        panels.append(_against_parameters(counted, key, f"{name}-parameters"))
    return panels


def stage_seconds(group: Group, name: str) -> list[Panel]:
    """Seconds by stage of every strategy, all blocks together."""
    panels = []
    for place, (strategy, members) in enumerate(group.strategies.items()):
        spent = {
            stage: sum(entry.value for entry in series if entry is not None)
            for stage, series in stages(members).items()
        }
        method = next(m for m in group.methods if m.members[0].strategy == strategy)
        figure, axes = canvas(4.2, 0.9 + 0.32 * len(spent))
        axes.barh(list(spent), list(spent.values()), color=look(method.index).color, height=0.6)
        for row, value in enumerate(spent.values()):
            axes.annotate(
                brief(value), (value, row), (3, 0), textcoords="offset points", va="center"
            )
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="seconds")
        told = [f"{stage} {brief(value)} s" for stage, value in spent.items()]
        title = f"{strategy}: seconds per stage"
        panels.append(to_panel(figure, f"{name}-stages{place}", title, _told(title, told)))
    return panels


def legend(group: Group, name: str) -> list[tuple[str, str]]:
    """Every method with a piece of its line and its marker."""
    entries = []
    for place, method in enumerate(group.methods):
        figure, axes = canvas(0.5, 0.2)
        color, marker, line = look(method.index)
        axes.plot([0, 1, 2], [0, 0, 0], color=color, marker=marker, linestyle=line, markevery=[1])
        axes.set_axis_off()
        entries.append((method.name, to_ornament(figure, f"{name}-swatch{place}")))
    return entries


def _curve(
    group: Group, name: str, title: str, series_of: Callable[[Method], Series]
) -> Panel | None:
    figure, axes = canvas()
    told, blocks = [], 0
    for method in group.methods:
        series = series_of(method)
        known = [(k, entry) for k, entry in enumerate(series) if entry is not None]
        if not known:
            continue
        blocks = max(blocks, len(series))
        x, y = [k for k, _ in known], [entry.value for _, entry in known]
        color, marker, line = look(method.index)
        axes.plot(x, y, color=color, marker=marker, linestyle=line)
        if any(entry.sd for _, entry in known):
            low = [max(0.0, entry.value - entry.sd) for _, entry in known]
            high = [entry.value + entry.sd for _, entry in known]
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        told.append(f"{method.name} from {y[0]:.4f} on D{x[0]} to {y[-1]:.4f} on D{x[-1]}")
    if not told:
        return None
    step = max(1, math.ceil(blocks / 8))
    axes.set_xticks(range(0, blocks, step), [f"D{k}" for k in range(0, blocks, step)])
    axes.set(xlabel="block learnt", ylabel=group.about["metric"])
    return to_panel(figure, name, title, _told(title, told))


def _heat_map(
    method: Method, rows: Sequence[Series], limits: tuple[float, float], name: str
) -> Panel:
    import matplotlib
    import numpy as np

    blocks = len(rows)
    values = np.array([[math.nan if e is None else e.value for e in row] for row in rows])
    figure, axes = canvas(4.2, 3.4)
    colours = matplotlib.colormaps["cividis"].resampled(32)
    mesh = axes.pcolormesh(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    mesh.set(edgecolor=PAPER, linewidth=1.5)
    if blocks <= ANNOTATED:
        for (k, j), value in np.ndenumerate(values):
            if not math.isnan(value):
                dark = value < (limits[0] + limits[1]) / 2
                shown = f"{value:.3f}".removeprefix("0")
                ink = "#fefefe" if dark else "#111111"
                axes.text(j + 0.5, k + 0.5, shown, ha="center", va="center", color=ink, size=9)
    step = max(1, math.ceil(blocks / 10))
    places = range(0, blocks, step)
    middles, labels = [k + 0.5 for k in places], [f"D{k}" for k in places]
    axes.set_xticks(middles, labels)
    axes.set_yticks(middles, labels)
    axes.set(xlabel="tested on", ylabel="after learning")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.03)
    bar.outline.set_edgecolor(INK)
    assert bar.solids is not None, "drawn with the bar"
    bar.solids.set(edgecolor="face", linewidth=0.6)
    last = max((k for k, row in enumerate(rows) if any(row)), default=0)
    told = [
        f"D{j} from {first.value:.4f} to {now.value:.4f}"
        for j in range(last)
        if (first := rows[j][j]) is not None and (now := rows[last][j]) is not None
    ]
    title = f"{method.name}: accuracy matrix"
    return to_panel(figure, name, title, _told(f"{title}; until D{last} is learnt", told))


def _against_parameters(counted: Sequence[tuple[Method, int]], key: str, name: str) -> Panel:
    figure, axes = canvas()
    told = []
    for method, count in counted:
        reached = [entry for entry in quantity(method, key) if entry is not None][-1]
        _point(axes, method, count, reached)
        told.append(f"{method.name} {reached.value:.4f} with {count:,}")
    _logarithmic(axes)
    axes.set(xlabel="trained parameters", ylabel=key)
    title = f"{key} against parameters"
    return to_panel(figure, name, title, _told(title, told))


def _point(axes: Axes, method: Method, x: float, reached: Mean | None) -> None:
    assert reached is not None, "the last block measured"
    color, marker, _ = look(method.index)
    axes.errorbar(
        x, reached.value, yerr=reached.sd or None, color=color, marker=marker, ms=8, capsize=3
    )


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis where one method costs far more than another."""
    low, high = axes.dataLim.intervalx
    if low > 0 and high > 20 * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: brief(x))  # its own writes powers in TeX
        axes.xaxis.set_minor_formatter(lambda x, _: "")
    else:
        axes.margins(x=0.12)
        axes.ticklabel_format(axis="x", style="plain")
        axes.locator_params(axis="x", nbins=5)


def _told(title: str, parts: Sequence[str]) -> str:
    return f"{title}: {'; '.join(parts)}." if parts else f"{title}."
