"""The tables of what was measured, as text ready to be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ccdgraph.bench.results import TESTS
from ccdgraph.report.content import Group, Method
from ccdgraph.report.series import (
    EVALUATION,
    Mean,
    Series,
    brief,
    matrix,
    mean,
    newest,
    parameters,
    quantity,
    stages,
)

NONE = "-"
COLUMNS = 6  # of numbers side by side that fit on paper


class Table(NamedTuple):
    """A table: its caption, the heads of its columns, and rows that begin with their own heads.

    ``texts`` counts the columns that hold words, from the left; the others hold numbers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


def results(group: Group) -> Table:
    """Every summary after the last block, with and without the base block."""
    rows = [
        [
            method.name,
            "all blocks" if base else "without D0",
            str(len(method.members)),
            *(shown(series[-1] if series else None) for series in found),
        ]
        for base in (True, False)
        for method in group.methods
        if any(map(any, found := [quantity(method, s, base=base) for s in group.summaries]))
    ]
    head = ["method", "mean over", "seeds", *group.summaries]
    return Table(f"After the last block: {group.rule}.", head, rows, 2)


def tests(group: Group) -> Table | None:
    """The paired tests, where there are any."""
    if not group.comparisons:
        return None
    head = ["baseline", "quantity", "difference", "users", "seeds", "p", "p (Holm)"]
    rows = [
        [
            *(test["baseline"], test["quantity"], f"{test['difference']:+.4f}"),
            *(str(test["users"]), str(test["seeds"])),
            *(f"{test['p']:.2g}", f"{test['corrected']:.2g}"),
        ]
        for test in group.comparisons
    ]
    caption = f"Lead of {group.comparisons[0]['reference']}: {TESTS}; {group.conditions}."
    return Table(caption, head, rows, 2)


def by_block(group: Group) -> Table:
    """LA, RA, H, forgetting and BWT after every block."""
    found = {
        (method.name, name): series
        for method in group.methods
        for name in group.summaries
        if any(series := quantity(method, name))
    }
    return _blocks(f"After every block, D0 included: {group.rule}.", ["method", "summary"], found)


def newcomers(group: Group) -> Table | None:
    """Accuracy of new users and on new items on every block right after it was learnt."""
    names = ("new_users", "old_users", "new_items", "old_items")
    found = {
        (method.name, name.replace("_", " ")): series
        for method in group.methods
        for name in names
        if any(series := newest(method, name))
    }
    caption = f"On each block right after it was learnt: {group.rule}."
    return _blocks(caption, ["method", "counted"], found) if found else None


def accuracy(group: Group, method: Method) -> Table:
    """The accuracy matrix of a method."""
    rows = matrix(method)
    head = ["after", *(f"D{j}" for j in range(len(rows)))]
    body = [[f"D{k}", *map(shown, row)] for k, row in enumerate(rows)]
    return Table(f"{method.name} on the block of the column: {group.rule}.", head, body)


def costs(group: Group) -> Table:
    """Parameters, state, memory and seconds."""
    head = ["method", "parameters", "state", "peak memory", "learning, s", "evaluation, s"]
    rows = []
    for method in group.methods:
        spent = stages(method.members)
        seconds = [
            sum(
                e.value
                for name, row in spent.items()
                if (name == EVALUATION) == last
                for e in row
                if e
            )
            for last in (False, True)
        ]
        states = [max(m.about["state_bytes"].values(), default=0) for m in method.members]
        devices = method.members[0].about["peak_memory"]
        peaks = [
            f"{name} {_size(m.about['peak_memory'].get(name) for m in method.members)}"
            for name in devices
        ]
        count = parameters(method)
        numbers = [NONE if count is None else f"{count:,}", _size(states), ", ".join(peaks)]
        rows.append([method.name, *numbers, *map(brief, seconds)])
    caption = (
        "Trained parameters; largest state that learning goes on from; peak memory of the process; "
        "seconds over all blocks, shared base models included; mean over seeds. "
        f"{group.about['hardware']}."
    )
    return Table(caption, head, rows)


def seconds(group: Group) -> Table:
    """Seconds by stage and block."""
    found = {
        (strategy, stage): series
        for strategy, members in group.strategies.items()
        for stage, series in stages(members).items()
    }
    caption = f"Seconds per stage and block, mean over seeds. {group.about['hardware']}."
    return _blocks(
        caption,
        ["strategy", "stage"],
        found,
        lambda entry: NONE if entry is None else brief(entry.value),
    )


def signatures(group: Group) -> Table | None:
    """What looks wrong: a row for every kind of failure that a run shows, with the last words."""
    found: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for strategy, members in group.strategies.items():
        for member in members:
            for one in member.about.get("signatures", []):
                key = (strategy, str(member.about["seed"]), one["scorer"], one["kind"])
                found.setdefault(key, []).append(one)
    if not found:
        return None
    rows = [
        [*key, " ".join(f"D{one['block']}" for one in those), those[-1]["message"]]
        for key, those in found.items()
    ]
    head = ["strategy", "seed", "scorer", "kind", "after", "last seen"]
    return Table(
        f"Signs of failure, looked for after every block: {group.conditions}.", head, rows, 6
    )


def pieces(table: Table | None) -> list[Table]:
    """The table in parts that are no wider than a page; no part of no table.

    >>> [part.head for part in pieces(Table("", ["method", *"1234567"], []))]
    [['method', '1', '2', '3', '4', '5', '6'], ['method', '7']]
    """
    if table is None:
        return []
    columns = range(table.texts, len(table.head), COLUMNS)
    return [
        table._replace(
            head=_part(table.head, table.texts, c),
            rows=[_part(row, table.texts, c) for row in table.rows],
        )
        for c in columns or (table.texts,)
    ]


def _part(row: Sequence[str], texts: int, first: int) -> list[str]:
    return [*row[:texts], *row[first : first + COLUMNS]]


def shown(entry: Mean | None) -> str:
    """A mean with its deviation, if it has one.

    >>> shown(Mean(0.25, 0.0)), shown(None)
    ('0.2500', '-')
    """
    if entry is None:
        return NONE
    number = f"{entry.value:.4f}"
    return f"{number} ± {entry.sd:.4f}" if entry.sd else number


def _blocks(
    caption: str,
    head: Sequence[str],
    found: Mapping[tuple[str, str], Series],
    form: Callable[[Mean | None], str] = shown,
) -> Table:
    length = max(map(len, found.values()), default=0)
    rows = [
        [*key, *map(form, series), *[NONE] * (length - len(series))]
        for key, series in found.items()
    ]
    return Table(caption, [*head, *(f"D{k}" for k in range(length))], rows, 2)


def _size(sizes: Iterable[float | None]) -> str:
    found = mean(sizes)
    if found is None:
        return NONE
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if found.value >= size:
            return f"{found.value / size:.1f} {unit}"
    return f"{found.value / 1e3:.1f} kB"
