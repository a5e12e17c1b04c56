"""The tables of where the numbers come from: settings, machines, data, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable

from ccdgraph.report.content import Content, Member
from ccdgraph.report.series import flatten
from ccdgraph.report.tables import NONE, Table


def settings(content: Content) -> list[Table]:
    """The settings that all strategies share, then those of each; unset keys are left out."""
    flat = {name: _distinct(members) for name, members in _strategies(content).items()}
    first = next(iter(flat.values()))
    shared = {
        key: value
        for key, value in first.items()
        if len(flat) > 1 and all(other.get(key) == value for other in flat.values())
    }
    tables = {"All strategies": shared} if shared else {}
    tables |= {
        name: {key: value for key, value in own.items() if key not in shared}
        for name, own in flat.items()
    }
    return [
        Table(
            f"{name}. Values that differ between runs are separated by |.",
            ["key", "value"],
            rows,
            2,
        )
        for name, own in tables.items()
        if (rows := [[key, value] for key, value in own.items()])
    ]


def machines(content: Content) -> Table:
    """Hardware, versions and data of all runs."""
    abouts = [m.about for members in _strategies(content).values() for m in members]
    found: dict[str, dict[str, None]] = {}
    for about in abouts:
        named = {"hardware": about["hardware"], "device": about.get("device", NONE)}
        named |= {f"version of {name}": value for name, value in about["versions"].items()}
        data = about["data"]
        what = f"{data['blocks']} blocks, {data['users']:,} users, {data['items']:,} items"
        named[f"data {data['name']}, protocol {about['protocol']}"] = what
        named[f"fingerprint of {data['name']}, protocol {about['protocol']}"] = data["fingerprint"]
        for key, value in named.items():
            found.setdefault(key, {})[str(value)] = None
    rows = [[key, " | ".join(values)] for key, values in found.items()]
    return Table("Where the numbers come from.", ["what", "value"], rows, 2)


def missing(content: Content) -> Table | None:
    """Cells without results."""
    if not content.missing:
        return None
    return Table("Not part of any number here.", ["cell", "why"], content.missing, 2)


def _strategies(content: Content) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for group in content.groups:
        for strategy, members in group.strategies.items():
            found.setdefault(strategy, []).extend(members)
    return found


def _distinct(members: Iterable[Member]) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for member in members:
        for key, value in flatten(member.about["config"]).items():
            if value != "not set" and not (key == "base_from" and member.shared):
                found.setdefault(key, {})[value] = None
    return {key: " | ".join(values) for key, values in found.items()}
