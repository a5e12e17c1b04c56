"""The tables of `citeulike.py` to read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from parts import experiment_tables
from parts.citeulike_protocols import PROTOCOLS, SEARCH

HEAD = ("student", "teacher", "method", "measured", "sd", "seeds", "published")
HEAD += ("epochs", "s/epoch", "MiB", "jobs")


def markdown(
    commands: Mapping[str, str],
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]],
    grids: Mapping[str, Mapping[str, Mapping[str, Any]]],
    trials: Mapping[str, Sequence[Mapping[str, Any]]],
    missing: Sequence[Mapping[str, Any]],
    begun: Collection[str],
) -> str:
    """One table for each protocol that is begun, and what was tried on validation rows."""
    lines = []
    for name, entries in tables.items():
        if name not in begun:
            continue
        protocol = PROTOCOLS[name]
        lines += [f"## {name}", "", f"{' '.join(protocol.metric)}, {protocol.folder}:", ""]
        lines += [f"    {commands[name]}", ""] if name in commands else []
        lines += [f"Published: {protocol.source}.", ""] if protocol.source else []
        lines += _grid(grids.get(name, {}))
        lines += [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
        for entry in entries.values():
            lines.append(f"| {' | '.join(_shown(entry.get(key)) for key in HEAD)} |")
        if trials.get(name):
            metric = protocol.metric[1]
            lines += ["", f"Tried with seed {SEARCH}:", "", f"| row | settings | valid {metric} |"]
            lines.append("|---|---|---|")
        for one in trials.get(name, ()):
            own = json.dumps(one["settings"])
            lines.append(f"| {one['method']} | `{own}` | {_shown(one[metric])} |")
        gaps = [at for at in missing if at["protocol"] == name]
        words = [
            f"{at['row']} ({at['student']}, {at['teacher']}, seed {at['seed']})" for at in gaps
        ]
        lines += ["", f"Not measured: {'; '.join(words)}."] if gaps else []
        lines.append("")
    return "\n".join(lines)


def _grid(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Methods by students; nothing where there is none."""
    columns = sorted({column for row in rows.values() for column in row})
    whole = {method: {c: row.get(c) for c in columns} for method, row in rows.items()}
    return [*experiment_tables.markdown({"method": whole}).splitlines(), ""] if whole else []


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
