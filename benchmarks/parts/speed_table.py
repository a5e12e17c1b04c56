"""What ``speed.py`` has measured as tables in Markdown: the last thing that it prints."""

from __future__ import annotations

from typing import Any

from figures import pairs

PAIRS, SIZES = "before and after", "edges"


def table(found: dict[str, Any]) -> str:
    """One figure a line, then the pairs of before and after, sizes and ratios."""
    parts = {n: part for n, part in found.items() if n not in ("ratios", PAIRS, SIZES)}
    lines = ["| | ms |", "|---|---|"]
    for name, part in parts.items():
        for key, value in part.items():
            if isinstance(value, list) and key not in ("batch", "fanout"):
                sizes = zip(part["batch"], value, strict=True)
                lines += [f"| {name}, {key}, batch {b:,} | {1e3 * x:.3f} |" for b, x in sizes]
            elif isinstance(value, float) and "bytes" not in key:
                lines.append(f"| {name}, {key} | {1e3 * value:.3f} |")
    head, *rows = pairs(found)
    lines += ["", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))]
    if SIZES in found:
        lines += ["", "| embeddings, MB | ns an edge |", "|---|---|"]
        both = (found[SIZES][key] for key in ("MB of embeddings", "ns an edge"))
        lines += [f"| {size:.0f} | {ns:.2f} |" for size, ns in zip(*both, strict=True)]
    lines += ["", "| ratio | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4f} |" for name, value in found.get("ratios", {}).items()]
    return "\n".join(lines) + "\n"
