"""Item features on a stream with planted features: all items, and those that a block brings.

A feature vector is that of the item's community, seen through noise. LightGCN with and without the
features learns the stream by fine-tuning, as does one with the features in random order, which say
nothing. After each block its test rows are measured, those of new items apart.

    python benchmarks/features.py --to benchmarks/results/features.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ccdgraph.bench.paired import holm, wilcoxon
from ccdgraph.config import rng
from ccdgraph.continual import FineTune, FineTuneConfig
from ccdgraph.continual.config import BaseConfig
from ccdgraph.data import Stream, synthetic_stream
from ccdgraph.evaluate import evaluate, seen_items
from ccdgraph.nn import BackboneConfig
from ccdgraph.train import FitConfig

METRIC = "recall@20"
MODELS = ("LightGCN", "with features", "with shuffled features")
GROUPS = ("all items", "new items")


def planted_features(stream: Stream, seed: int, noise: float) -> torch.Tensor:
    """A noisy direction for every community, ``[I, 16]``; external ids tell the community."""
    draw = rng(seed, "features")
    community = torch.tensor([int(name[1 : name.index("i")]) for name in stream.items.tolist()])
    centre = torch.randn(int(community.max()) + 1, 16, generator=draw)
    return centre[community] + noise * torch.randn(len(community), 16, generator=draw)


def learn(stream: Stream, model: BackboneConfig, seed: int, epochs: int) -> dict[str, pd.Series]:
    """Mean recall of every user over the blocks after the base, by group of items."""
    fit = FitConfig(epochs=epochs, lr=1e-2)
    base = BaseConfig(1024, 2, FitConfig(epochs=3 * epochs, lr=1e-2))
    learner = FineTune(FineTuneConfig(model, base, fit=fit, batch_size=1024), seed=seed)
    found: dict[str, list[pd.Series]] = {group: [] for group in GROUPS}
    for block in stream:
        out = learner.update(block)
        if block.index == 0:
            continue
        seen = seen_items(stream, tested=block.index, learnt=block.index)
        for group, first in zip(GROUPS, (0, stream[block.index - 1].num_items), strict=True):
            if (block.test.item >= first).any():
                measured = evaluate(out, block.test, seen, ks=(20,), item_from=first)
                found[group].append(measured.to_frame().set_index("user")[METRIC])
    return {name: pd.concat(parts).groupby(level=0).mean() for name, parts in found.items()}


def models(folder: Path, stream: Stream, seed: int, options: argparse.Namespace) -> Any:
    """The three models' configurations; features go through a file."""
    features = planted_features(stream, seed, options.noise)
    shuffled = features[torch.randperm(len(features), generator=rng(seed, "shuffled"))]
    made = [BackboneConfig("LightGCN", options.dim)]
    for name, matrix in (("true.npy", features), ("shuffled.npy", shuffled)):
        np.save(folder / name, matrix.numpy())
        path = {"item_features": str(folder / name)}
        made.append(BackboneConfig("ContentLightGCN", options.dim, path))
    return zip(MODELS, made, strict=True)


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Recall by model, group and seed, and tests over the users of all seeds."""
    found: dict[str, list[dict[str, pd.Series]]] = {name: [] for name in MODELS}
    for seed in range(options.seeds):
        stream = synthetic_stream(options.users, options.items, options.rows, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            for name, model in models(Path(folder), stream, seed, options):
                found[name].append(learn(stream, model, seed, options.epochs))
    recall = {
        name: {group: [float(run[group].mean()) for run in runs] for group in GROUPS}
        for name, runs in found.items()
    }
    tests = {
        f"with features - {other}, {group}": compare(found["with features"], found[other], group)
        for other in ("LightGCN", "with shuffled features")
        for group in GROUPS
    }
    for test, p in zip(tests.values(), holm([t["p"] for t in tests.values()]), strict=True):
        test["corrected p"] = p
    return {METRIC: recall, "tests": tests}


def compare(
    own: Sequence[dict[str, pd.Series]], other: Sequence[dict[str, pd.Series]], group: str
) -> dict[str, float]:
    """Mean difference over users, and whether it is one."""
    gaps = [a[group] - b[group] for a, b in zip(own, other, strict=True)]
    difference = pd.concat(gaps, ignore_index=True)
    return {
        "difference": float(difference.mean()),
        "p": wilcoxon(difference),
        "users": len(difference),
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    numbers = {"seeds": 5, "users": 800, "items": 600, "rows": 16_000, "dim": 16, "epochs": 10}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--to", type=Path, help="JSON file to write")
    options = parser.parse_args()
    result = {"about": {**vars(options), "to": None}, **experiment(options)}
    for name, test in result["tests"].items():
        print(f"{name}: {test['difference']:+.4f}, corrected p {test['corrected p']:.1e}")
    if options.to:
        options.to.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
