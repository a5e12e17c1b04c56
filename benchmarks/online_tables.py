"""Tables of the files that online.py, drift.py, alignment.py and others write, in Markdown.

python benchmarks/online_tables.py benchmarks/results/online.json [--plot reliability.svg]
python benchmarks/online_tables.py benchmarks/results/drift.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, of one value the value."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def row(*cells: Any) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def header(*cells: str) -> Iterator[str]:
    """The first two lines of a table."""
    yield row(*cells)
    yield row(*("---" for _ in cells))


def online(result: Record) -> Iterator[str]:
    """Tables of all cells, of costs, of the head against the served score, and of the sweep."""
    alone = result["no distillation"]
    yield from header("labels into", "teacher", "lag", "recall@20", "gap to none", "ECE")
    yield row("none", "", "", spread(alone["recall@20"]), "", spread(alone["ece"]))
    base = statistics.mean(alone["recall@20"])
    for name, cell in result["cells"].items():
        gap = f"{statistics.mean(cell['recall@20']) - base:+.4f}"
        place = name.split("/")
        yield row(*place, spread(cell["recall@20"]), gap, spread(cell["ece"]))
    yield ""
    yield from by_block(result["cells"])
    yield ""
    yield from header(*(f"{name}, s" if "/" not in name else name for name in result["seconds"]))
    yield row(*(f"{value:.2f}" for value in result["seconds"].values()))
    yield ""
    for name in ("auxiliary - direct", "distilled - alone"):
        columns = ("recall@20", "corrected p", "ECE", "corrected p, seeds", "corrected p, users")
        yield from header(name, *columns)
        for cell, test in result[name].items():
            yield row(cell, *tested(test, "corrected ", len(alone["ece"])))
        yield ""
    if result["sweep"]:
        columns = ("difference", "p", "ECE", "p, seeds", "p, users")
        yield from header("lift", "none", "direct", "auxiliary", *columns)
        for lift, found in result["sweep"].items():
            kinds = ("no distillation", "direct", "auxiliary")
            means = (f"{statistics.mean(found[kind]['recall@20']):.4f}" for kind in kinds)
            yield row(lift, *means, *tested(found["auxiliary - direct"], "", len(alone["ece"])))
        yield ""
        weights = list(next(iter(result["sweep"].values()))["auxiliary - direct by weight"])
        yield from header("lift", *(f"at weight {weight}" for weight in weights))
        for lift, found in result["sweep"].items():
            tests = found["auxiliary - direct by weight"].values()
            stars = ((t["recall@20"], t["corrected p recall@20"] < 0.05) for t in tests)
            yield row(lift, *(f"{gap:+.4f}{' *' * sure}" for gap, sure in stars))


def tested(test: Record, which: str, seeds: int) -> Iterator[str]:
    """Differences in Recall and ECE, and their p-values; one seed has no test over seeds."""
    yield f"{test['recall@20']:+.4f}"
    yield f"{test[which + 'p recall@20']:.1e}"
    yield f"{test['ece']:+.4f}"
    yield f"{test[which + 'p ece']:.1e}" if seeds > 1 else "-"
    yield f"{test[which + 'p ece by user']:.1e}" if which + "p ece by user" in test else ""


def by_block(cells: Record) -> Iterator[str]:
    """What distillation adds to Recall, block by block."""
    blocks = next(iter(cells.values()))["gap by block"]
    yield from header("gap to none", *(f"block {block}" for block in blocks))
    for name, cell in cells.items():
        yield row(name, *(f"{gap:+.4f}" for gap in cell["gap by block"].values()))


def drift(result: Record) -> Iterator[str]:
    """Delays and false alarms by detector."""
    shares = list(result["detection"])
    late = (f"within a block, {share} turn" for share in shares)
    yield from header("detector", "setting", *late, "false alarms")
    for name in result["detection"][shares[0]]:
        by = [result["detection"][share][name] for share in shares]
        found = [sum(delay in (0, 1) for delay in f["delay"]) for f in by]
        counts = (f"{n} of {len(f['delay'])}" for n, f in zip(found, by, strict=True))
        chances = sum(f["blocks without drift"] for f in by)
        false = sum(f["false alarms"] * f["blocks without drift"] for f in by) / chances
        setting = result["settings"][name]
        used = "threshold" if setting["method"] == "page-hinkley" else "alpha"
        yield row(name, f"{used} {setting[used]}", *counts, f"{false:.1%}")
    if result["reactions"]:
        yield ""
        yield from reactions(result)


def reactions(result: Record) -> Iterator[str]:
    """What reactions to an alarm change."""
    caller = result["calls the actions"]
    used = f"{caller}, alpha {result['settings'][caller]['alpha']}"
    names = ("recall since the drift", "LA", "RA", "H")
    for share, by in result["reactions"].items():
        yield from header(f"{share} turn, on {used}", *names)
        for name, runs in by.items():
            differ = [
                {key: run[key] - base[key] for key in names}
                for run, base in zip(runs, by["none"], strict=True)
            ]
            shown, label = (runs, name) if name == "none" else (differ, f"{name}, minus none")
            yield row(label, *(spread([run[key] for run in shown]) for key in names))
        yield ""


def features(result: Record) -> Iterator[str]:
    """Recall of all and of new items by model, and the tests."""
    groups = list(next(iter(result["recall@20"].values())))
    yield from header("recall@20", *groups)
    for name, by in result["recall@20"].items():
        yield row(name, *(spread(by[group]) for group in groups))
    yield ""
    yield from header("difference", "recall@20", "corrected p")
    for name, test in result["tests"].items():
        yield row(name, f"{test['difference']:+.4f}", f"{test['corrected p']:.1e}")


def teacher_size(result: Record) -> Iterator[str]:
    """The student's gain by the width of its teacher."""
    yield from header("teacher", "weight", "student alone", "taught", "gain", "corrected p")
    for multiple, cell in result["recall@20"].items():
        means = (spread(cell[name]) for name in ("alone", "student"))
        test = (f"{cell['gain']:+.4f}", f"{cell['corrected p']:.1e}")
        yield row(f"{multiple}x", cell["weight"], *means, *test)


def alignment(result: Record) -> Iterator[str]:
    """Recall and what the maps miss by student, and the tests."""
    yield from header("teacher's embeddings", "weight", "recall@20", "missed before a block")
    for name, cell in result["refreshed"].items():
        left = spread(cell["missed"]["by seed"]) if cell["missed"] else ""
        yield row(name, cell["weight"], spread(cell["recall@20"]["by seed"]), left)
    yield ""
    yield from header("difference", "recall@20", "corrected p")
    for name, test in result["differences"].items():
        yield row(name, f"{test['difference']:+.4f}", f"{test['corrected p']:.1e}")


TABLES = {
    "detection": drift,
    "reactions": reactions,
    "refreshed": alignment,
    "tests": features,
    "cells": online,
    "recall@20": teacher_size,
}


def plot(curves: Record, path: Path) -> None:
    """Predicted against observed shares; the diagonal is calibrated."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, curve in curves.items():
        axes.plot(curve["predicted"], curve["observed"], marker="o", markersize=3, label=name)
    axes.set(xlabel="predicted", ylabel="observed", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Print the tables of a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--plot", type=Path, help="image of the reliability of a few cells")
    options = parser.parse_args()
    result = json.loads(options.file.read_text())
    table = next(table for name, table in TABLES.items() if name in result)
    print("\n".join(table(result)))
    if options.plot:
        plot(result["reliability"], options.plot)


if __name__ == "__main__":
    main()
