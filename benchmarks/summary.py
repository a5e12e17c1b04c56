"""The tables of a suite as JSON: what the documentation shows.

    python benchmarks/summary.py runs/planted --to benchmarks/results/planted.json

Means and sample standard deviations over seeds, from the results that ``ccdgraph bench`` left.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from ccdgraph.bench import Outcome, SuiteConfig, cells
from ccdgraph.bench.cell import outcome
from ccdgraph.bench.run import CONFIG
from ccdgraph.bench.tables import Line, lines
from ccdgraph.config import load


def summary(folder: Path) -> dict[str, Any]:
    """What was measured, with what, and a table for every data, protocol, mask and backbone."""
    suite = load(SuiteConfig, folder / CONFIG)
    outcomes = [outcome(cell, folder) for cell in cells(suite)]
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    if not finished:
        raise SystemExit(f"'{folder}' has no finished cell; run the suite first")
    tables = {", ".join(place): _table(found, finished) for place, found in lines(outcomes).items()}
    return {"about": _about(suite, finished), "tables": tables}


def _about(suite: SuiteConfig, finished: list[Outcome]) -> dict[str, Any]:
    first = finished[0].about
    return {
        "command": f"ccdgraph bench benchmarks/configs/{suite.name}.toml",
        "metric": first["metric"],
        "seeds": len(suite.seeds),
        "hardware": first["hardware"],
        "versions": first["versions"],
        "ties": first["ties"],
    }


def _table(found: list[Line], finished: list[Outcome]) -> dict[str, dict[str, Any]]:
    table = {}
    for line in found:
        row: dict[str, Any] = {}
        for name, values in line.values.items():
            known = [value for value in values if not math.isnan(value)]
            if known:
                deviation = statistics.stdev(known) if len(known) > 1 else None
                row[name] = {"mean": statistics.fmean(known), "sd": deviation}
        if not row:
            continue  # not run yet
        row["seeds"] = len(line.values["LA"])
        own = [o.about["parameters"] for o in finished if o.cell.strategy == line.strategy]
        model = "student" if line.scorer == "generated" else line.scorer
        sizes = {p.get(model, sum(p.values())) for p in own}
        row["parameters"] = max(sizes) if sizes else None
        table[f"{line.strategy}, {line.scorer}"] = row
    return table


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suite", type=Path, help="folder of a suite")
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    text = json.dumps(summary(options.suite), indent=1) + "\n"
    print(text)
    if options.to:
        options.to.write_text(text)


if __name__ == "__main__":
    main()
