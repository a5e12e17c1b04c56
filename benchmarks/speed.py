"""The hot paths: message passing, evaluation, sampled steps and serving, as seconds and ratios.

    python benchmarks/speed.py --device cpu --to benchmarks/results/speed_cpu.json
    python benchmarks/speed.py --device cuda --to benchmarks/results/speed_cuda.json
    python benchmarks/speed.py --device cpu --check benchmarks/results/speed_cpu.json  # make bench

The data are skewed interactions of Gowalla's size (29,858 users, 40,981 items, 810,128 rows) and,
for sampled steps, of 100,000 users and items as well. Every figure is the median of ``--repeats``
runs after one that does not count, the device idle before and after; what is compared is timed by
turns. On a CPU seconds are those that the process spends on one core, which may be shared.
``--check`` measures again and fails where a ratio is more than ``--slack`` times as bad as the
stored one. The table of what was measured comes last.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from parts.before_after import before_after, other_lists
from parts.clock import Clock
from parts.layers import DIM, edges, graph_of, propagation
from parts.sampled_steps import sampled_steps
from parts.speed_table import table
from parts.training_steps import YELP, compiled, tensor_cores, training_steps
from torch import Tensor

from ccdgraph.data import skewed_interactions
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.sparse import without_kernels
from ccdgraph.distill.teacher import Ensemble
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import recommend_lists
from ccdgraph.recommender import Recommender
from ccdgraph.run.folder import hardware, versions

GOWALLA = (29_858, 40_981, 810_128)
LARGE = (100_000, 100_000, 5_000_000)


def evaluation(graph: BipartiteGraph, clock: Clock) -> dict[str, float]:
    """Mask, top 100 and metrics of every user, and the ranking alone."""
    draw = torch.Generator().manual_seed(0)
    sizes = (graph.num_users, graph.num_items)
    out = Embeddings(*(torch.randn(n, DIM, generator=draw) for n in sizes)).to(graph.device)
    rows = skewed_interactions(*sizes, 4 * sizes[0], seed=1).to(graph.device)
    everyone = torch.arange(sizes[0], device=graph.device)
    seen = graph.user_items
    measured, lists = clock.by_turns(
        lambda: evaluate(out, rows, seen, ks=(20, 50, 100)),
        lambda: recommend_lists(out, everyone, 100, seen),
    )
    return {"users": rows.user.unique().numel(), "evaluation": measured, "lists of everyone": lists}


def serving(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Scores and top 20 of a batch of users: a student d = 8 and five teachers d = 128."""
    draw, sizes = torch.Generator().manual_seed(0), (graph.num_users, graph.num_items)

    def served(dim: int) -> Embeddings:
        tables = (torch.randn(n, dim, generator=draw) for n in sizes)
        return Embeddings(*tables).to(graph.device)

    scorers = {"student": served(8), "ensemble": Ensemble([served(128) for _ in range(5)])}
    found: dict[str, Any] = {"batch": [1, 1024]}
    for size in found["batch"]:
        user = torch.arange(size, device=graph.device)
        runs: dict[str, Callable[[], Any]] = {
            name: lambda s=s, u=user: recommend_lists(s, u, 20, graph.user_items)
            for name, s in scorers.items()
        }
        if graph.device.type == "cuda":
            runs |= recorded(scorers, graph, user, found.setdefault("share of other lists", {}))
        for name, seconds in zip(runs, clock.by_turns(*runs.values()), strict=True):
            found.setdefault(name, []).append(seconds)
    return found


def recorded(
    scorers: dict[str, Any], graph: BipartiteGraph, user: Tensor, other: dict[str, float]
) -> dict[str, Callable[[], Any]]:
    """Requests from the CPU that are replayed whole, and in ``other`` how their lists differ."""
    runs: dict[str, Callable[[], Any]] = {}
    request = user.cpu()
    for name, scorer in scorers.items():
        recommender = Recommender(
            scorer, graph.user_items, k=20, batch_size=len(user), device=graph.device
        )
        if recommender.graph is None:
            raise RuntimeError(f"the {name} was not recorded, so there is nothing to measure")
        expected = recommend_lists(scorer, user, 20, graph.user_items)[1].cpu()
        other[f"{name}, batch {len(user)}"] = other_lists(expected, recommender(request)[1])
        runs[f"{name}, recorded"] = lambda r=recommender: r(request)
    return runs


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """What is compared with the stored values: higher is worse, all free of the machine's speed."""
    layer, serve, steps = found["propagation"], found["serving"], found["steps, 100k"]
    floor, both = layer["gather floor"], "forward and backward"
    # PyG launches its kernels one by one.
    alone = layer.get(f"CSR {both}, launched alone", layer[f"CSR {both}"])
    return {
        "CSR forward / gather floor": layer["CSR forward"] / floor,
        f"CSR {both} / gather floor": layer[f"CSR {both}"] / floor,
        f"CSR / PyG LGConv, {both}": alone / layer[f"PyG LGConv {both}"],
        "evaluation / lists of everyone": found["evaluation"]["evaluation"]
        / found["evaluation"]["lists of everyone"],
        "sampled / whole step, batch 1024": steps["sampled"][1] / steps["whole"][1],
        "student / ensemble, batch 1": serve["student"][0] / serve["ensemble"][0],
        "student / ensemble, batch 1024": serve["student"][1] / serve["ensemble"][1],
    }


RATED = {"propagation", "steps, 100k", "serving", "evaluation"}  # what the ratios are made of
PARTS: dict[str, tuple[tuple[int, int, int], Callable[[BipartiteGraph, Clock], Any]]] = {
    "propagation": (GOWALLA, propagation),
    "steps, Gowalla": (GOWALLA, sampled_steps),
    "steps, 100k": (LARGE, sampled_steps),
    "serving": (GOWALLA, serving),
    "evaluation": (GOWALLA, evaluation),
    "recorded steps, Yelp": (YELP, training_steps),
    "before and after": (GOWALLA, before_after),
    "edges": (GOWALLA, edges),
    "compiled": (YELP, compiled),
    "tensor cores": (YELP, tensor_cores),
}


def measure(
    names: list[str], device: torch.device, repeats: int, path: Path | None
) -> dict[str, Any]:
    """The named parts, and of the others what ``path`` holds; written there after each."""
    clock, known = Clock(device, repeats), path is not None and path.exists()
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path and known else {}
    for name in names:
        sizes, part = PARTS[name]
        found[name] = {
            "repeats": repeats,
            "threads": torch.get_num_threads(),
            "hardware": hardware(),
            "versions": versions(),
            "sparse products": "torch" if without_kernels(device) else "Triton",
            **part(graph_of(sizes, device), clock),
        }
        print(name, flush=True)
        if found.keys() >= RATED:
            found["ratios"] = ratios(found)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def worse(found: dict[str, float], stored: dict[str, float], slack: float) -> list[str]:
    """Prints what moved, and names the ratios that are ``slack`` times the stored ones or more."""
    for name, value in found.items():
        print(f"{name:45s} {value:9.3f}   stored {stored[name]:9.3f}")
    return [name for name, value in found.items() if value >= slack * stored[name]]


def main() -> None:
    """Measure and write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--to", type=Path)
    parts = parser.add_mutually_exclusive_group()  # a ratio takes several
    parts.add_argument("--only", nargs="+", choices=list(PARTS))
    parts.add_argument("--check", type=Path)
    parser.add_argument("--slack", type=float, default=1.5)
    asked = parser.parse_args()
    torch.set_num_threads(1)  # what was stored was measured so: seconds of all threads are counted
    for message in (
        "Sparse CSR tensor support is in beta",
        "Sparse invariant checks are implicitly",
    ):
        warnings.filterwarnings("ignore", message)
    stored: dict[str, Any] = {}
    if asked.check:
        stored = json.loads(asked.check.read_text(encoding="utf-8"))
        if "ratios" not in stored:
            sys.exit(f"'{asked.check}' lacks parts; measure all with --to on a quiet machine first")
    # What is compared needs the parts of the ratios alone.
    names = asked.only or (sorted(RATED) if asked.check else list(PARTS))
    found = measure(names, torch.device(asked.device), asked.repeats, asked.to)
    print(table(found))
    if asked.check:
        slower = worse(found["ratios"], stored["ratios"], asked.slack)
        sys.exit(f"worse than stored: {', '.join(slower)}" if slower else 0)


if __name__ == "__main__":
    main()
