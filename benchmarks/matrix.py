"""Accuracy matrices of a suite's results, with LA, RA and H after every block, as Markdown.

    python benchmarks/matrix.py benchmarks/results/yelp/results.parquet

Row k of a matrix is the scorer after block k, column j its mean test metric on block j; LA is the
mean of the diagonal so far, RA that of the row, H their harmonic mean. Several seeds are averaged.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import pandas as pd
import torch

from ccdgraph.evaluate import AccuracyMatrix


def matrices(results: pd.DataFrame, metric: str) -> str:
    """One table for each strategy and scorer of one kind of data, protocol and mask."""
    chosen = results.query("metric == @metric and split == 'test' and group == 'all'")
    by = ["data", "protocol", "mask", "backbone", "strategy", "scorer"]
    tables = []
    for place, rows in chosen.groupby(by, sort=False):
        title = f"{place[4]}, {place[5]} ({', '.join(place[:4])}; {rows.seed.nunique()} seeds)"
        seeds = [_matrix(part) for _, part in rows.groupby("seed")]
        tables.append(f"**{title}**\n\n{_table(seeds)}\n")
    return "\n".join(tables)


def _matrix(rows: pd.DataFrame) -> AccuracyMatrix:
    matrix = AccuracyMatrix.empty(int(rows.learnt.max()) + 1)
    learnt, tested, value = (
        torch.tensor(rows[name].to_list()) for name in ("learnt", "tested", "value")
    )
    matrix.values[learnt, tested] = value.double()
    return matrix


def _table(seeds: list[AccuracyMatrix]) -> str:
    num = len(seeds[0].values)
    head = ["after", *(f"D{j}" for j in range(num)), "LA", "RA", "H", "H without D0"]
    lines = [head, ["---"] * len(head)]
    for k in range(num):
        cells = [_figure([float(seed.values[k, j]) for seed in seeds]) for j in range(k + 1)]
        means = [
            [seed.learning_average(k) for seed in seeds],
            [seed.retained_average(k) for seed in seeds],
            [seed.h_mean(k) for seed in seeds],
            [seed.h_mean(k, base=False) for seed in seeds],
        ]
        lines.append([f"D{k}", *cells, *[""] * (num - k - 1), *map(_figure, means)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(values: list[float]) -> str:
    """Mean over seeds, with the standard deviation where there are several."""
    if any(value != value for value in values):
        return ""
    mean = f"{statistics.fmean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def main() -> None:
    """Read, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--metric", default="recall@20")
    asked = parser.parse_args()
    print(matrices(pd.read_parquet(asked.results), asked.metric))


if __name__ == "__main__":
    main()
