"""The stored results of scale.py, speed.py and peers.py as tables and plots of the documentation.

python benchmarks/figures.py    # after any of them has written its JSON
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
KINDS = (
    ("ccdgraph LightGCN", "PyG LightGCN", "RecBole LightGCN"),
    ("ccdgraph MF", "implicit BPR"),
)
STAGES = ("read", "split", "learn block 0", "learn block 1", "measure")


def milliseconds(seconds: float) -> str:
    """Three places for what a device does in parts of a millisecond."""
    return f"{1e3 * seconds:.{1 if seconds >= 1e-2 else 3}f}"


def scale(found: dict[str, Any]) -> list[list[str]]:
    """One row for each size, and the exponents below."""
    clock = "seconds" if found["sizes"][0]["peak_bytes"]["device"] else "processor seconds"
    head = ["rows", "users", "items", *(f"{stage}, {clock}" for stage in STAGES), "peak, GiB"]
    lines = [[*head, "Recall@20 student", "teacher", "popularity"]]
    for size in found["sizes"]:
        seconds = [f"{size[clock][stage]:.1f}" for stage in STAGES]
        peak = max(size["peak_bytes"].values()) / 2**30
        quality = [f"{size['recall@20'][n]:.3f}" for n in ("student", "teacher", "popularity")]
        counts = [f"{size[name]:,}" for name in ("rows", "users", "items")]
        lines.append([*counts, *seconds, f"{peak:.2f}", *quality])
    slope = {name: f"{value:.2f}" for name, value in found["exponents"].items()}
    memory = slope.get("device bytes", slope.get("host bytes", ""))
    own = "" if clock == "seconds" else ", processor"
    powers = [slope.get(f"{stage}{own}", "") for stage in STAGES]
    return [*lines, ["exponent", "", "", *powers, memory, "", "", ""]]


def propagation(found: dict[str, Any]) -> list[list[str]]:
    """One layer of message passing in every way that was measured."""
    passes = ("forward", "forward and backward")
    lines = [["", *(head for name in passes for head in (f"{name}, ms", "times the floor"))]]
    part = found.get("propagation", {})
    for way in ("CSR {}", "CSR {}, torch", "CSR {}, launched alone", "PyG LGConv {}"):
        if way.format("forward") in part:
            seconds = [part[way.format(name)] for name in passes]
            figures = ((milliseconds(one), f"{one / part['gather floor']:.2f}") for one in seconds)
            lines.append([way.replace(" {}", ""), *(text for both in figures for text in both)])
    return lines


def steps(found: dict[str, Any]) -> list[list[str]]:
    """Milliseconds of a step on the whole graph and on samples."""
    lines = [["graph", "batch", "whole graph, ms", "sampled, ms", "sampled / whole"]]
    for name in ("Gowalla", "100k"):
        if (part := found.get(f"steps, {name}")) is None:
            continue
        for batch, whole, sampled in zip(
            part["batch"], part["whole"], part["sampled"], strict=True
        ):
            figures = [milliseconds(whole), milliseconds(sampled), f"{sampled / whole:.2f}"]
            lines.append([name, f"{batch:,}", *figures])
    return lines


def speed(found: dict[str, Any]) -> list[list[str]]:
    """The ratios of the regression gate."""
    ratios = found.get("ratios", {})
    return [["ratio", "value"], *([name, f"{value:.3f}"] for name, value in ratios.items())]


def pairs(found: dict[str, Any]) -> list[list[str]]:
    """Every optimisation: milliseconds without and with it."""
    lines = [["", "before, ms", "after, ms", "times faster", "difference", "Recall@20"]]
    parts = ("before and after", "compiled", "tensor cores")
    for name, row in (entry for part in parts for entry in found.get(part, {}).items()):
        if isinstance(row, dict) and "before" in row:
            seconds = [milliseconds(row[side]) for side in ("before", "after")]
            recall = [f"{row[key]:.4f}" for key in row if key.startswith("recall")]
            figures = [f"{row['times faster']:.2f}", f"{row['difference']:.2g}"]
            lines.append([name, *seconds, *figures, ", ".join(recall)])
    return lines


def served(found: dict[str, Any]) -> list[list[str]]:
    """Scores and top 20 of a student and of five teachers."""
    lines = [["", "student, ms", "five teachers, ms", "times faster"]]
    if (part := found.get("serving")) is not None:
        for how in ("", ", recorded"):
            both = (part.get(f"{name}{how}", []) for name in ("student", "ensemble"))
            for batch, student, ensemble in zip(part["batch"], *both, strict=False):
                users = f"{batch:,} user{'s' if batch > 1 else ''}{how}"
                figures = [milliseconds(student), milliseconds(ensemble)]
                lines.append([users, *figures, f"{ensemble / student:.1f}"])
    return lines


def layers(found: dict[str, Any]) -> list[list[str]]:
    """Nanoseconds an edge as the embeddings outgrow the caches."""
    lines = [["embeddings, MB", "ns an edge"]]
    if (part := found.get("edges")) is not None:
        sizes = zip(part["MB of embeddings"], part["ns an edge"], strict=True)
        lines += [[f"{size:.0f}", f"{ns:.3g}"] for size, ns in sizes]
    return lines


def peers(found: dict[str, Any]) -> list[list[str]]:
    """Seconds, ratios and recall of every peer."""
    measured = any(row.get("peak bytes") for row in found["peers"].values())
    memory = ["peak, MiB"] if measured else []
    lines = [["", "s an epoch", "times ours", "s an evaluation", *memory, "Recall@20"]]
    for names in KINDS:
        for name in names:
            if (row := found["peers"].get(name)) is not None:
                epoch, evaluation = row["seconds an epoch"], row["seconds an evaluation"]
                reference = found["peers"][names[0]]["seconds an epoch"]
                figures = [f"{epoch:.2f}", f"{epoch / reference:.1f}", f"{evaluation:.2f}"]
                size = row.get("peak bytes", 0) / 2**20
                figures += [f"{size:.0f}" if size else ""] if measured else []
                lines.append([name, *figures, f"{row['recall@20']:.4f}"])
    return lines


def draw_plot(result: dict[str, Any], path: Path) -> None:
    """Seconds and peak memory against rows, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ccdgraph"  # the same file from the same numbers
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    rows = [size["rows"] for size in result["sizes"]]
    for name in STAGES:
        left.loglog(rows, [s["seconds"][name] for s in result["sizes"]], "o-", label=name)
    for name in ("host", "device"):
        values = [s["peak_bytes"][name] / 2**30 for s in result["sizes"]]
        if any(values):
            right.loglog(rows, values, "o-", label=name)
    for axis, label in ((left, "seconds"), (right, "peak memory, GiB")):
        axis.set(xlabel="interactions", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Write a CSV for every stored result, and a plot for those of scale."""
    tables = [("scale", scale), ("peers", peers)]
    tables += [("speed", make) for make in (speed, propagation, steps, pairs, served, layers)]
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
    for path in sorted(RESULTS.glob("scale_*.json")):
        draw_plot(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
