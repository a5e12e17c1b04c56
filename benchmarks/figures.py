"""The stored results of scale.py, speed.py and peers.py as tables that the documentation includes.

python benchmarks/figures.py    # after any of them has written its JSON
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def scale(found: dict[str, Any]) -> list[list[str]]:
    """One row for each size, and the exponents below."""
    stages = ("read", "split", "learn block 0", "learn block 1", "measure")
    clock = "seconds" if found["sizes"][0]["peak_bytes"]["device"] else "processor seconds"
    head = ["rows", "users", "items", *(f"{stage}, {clock}" for stage in stages), "peak, GiB"]
    lines = [[*head, "Recall@20 student", "teacher", "popularity"]]
    for size in found["sizes"]:
        seconds = [f"{size[clock][stage]:.1f}" for stage in stages]
        peak = max(size["peak_bytes"].values()) / 2**30
        quality = [f"{size['recall@20'][n]:.3f}" for n in ("student", "teacher", "popularity")]
        counts = [f"{size[name]:,}" for name in ("rows", "users", "items")]
        lines.append([*counts, *seconds, f"{peak:.2f}", *quality])
    slope = {name: f"{value:.2f}" for name, value in found["exponents"].items()}
    memory = slope.get("device bytes", slope.get("host bytes", ""))
    own = "" if clock == "seconds" else ", processor"
    powers = [slope.get(f"{stage}{own}", "") for stage in stages]
    return [*lines, ["exponent", "", "", *powers, memory, "", "", ""]]


def steps(found: dict[str, Any]) -> list[list[str]]:
    """Milliseconds of a step on the whole graph and on samples."""
    lines = [["graph", "batch", "whole graph, ms", "sampled, ms", "sampled / whole"]]
    for name in ("Gowalla", "100k"):
        if (part := found.get(f"steps, {name}")) is None:
            continue
        for batch, whole, sampled in zip(
            part["batch"], part["whole"], part["sampled"], strict=True
        ):
            figures = [f"{1e3 * whole:.1f}", f"{1e3 * sampled:.1f}", f"{sampled / whole:.2f}"]
            lines.append([name, f"{batch:,}", *figures])
    return lines


def speed(found: dict[str, Any]) -> list[list[str]]:
    """The ratios of the regression gate."""
    ratios = found.get("ratios", {})
    return [["ratio", "value"], *([name, f"{value:.3f}"] for name, value in ratios.items())]


def peers(found: dict[str, Any]) -> list[list[str]]:
    """Seconds, ratios and recall of every peer."""
    lines = [["", "s an epoch", "times ours", "s an evaluation", "Recall@20"]]
    for ours, peer in (("ccdgraph LightGCN", "PyG LightGCN"), ("ccdgraph MF", "implicit BPR")):
        reference = found["peers"][ours]["seconds an epoch"]
        for name in (ours, peer):
            if (row := found["peers"].get(name)) is not None:
                epoch, evaluation = row["seconds an epoch"], row["seconds an evaluation"]
                figures = [f"{epoch:.2f}", f"{epoch / reference:.1f}", f"{evaluation:.2f}"]
                lines.append([name, *figures, f"{row['recall@20']:.4f}"])
    return lines


def main() -> None:
    """Write a CSV for every stored result."""
    tables = (("scale", scale), ("speed", speed), ("speed", steps), ("peers", peers))
    for source, make in tables:
        for path in sorted(RESULTS.glob(f"{source}_*.json")):
            device = path.stem.removeprefix(f"{source}_")
            target = RESULTS / f"{make.__name__}_{device}.csv"
            rows = make(json.loads(path.read_text(encoding="utf-8")))
            if len(rows) == 1:  # not measured yet
                continue
            with target.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows(rows)


if __name__ == "__main__":
    main()
