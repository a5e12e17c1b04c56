"""The hot paths: message passing, evaluation, sampled steps and serving, as seconds and ratios.

    python benchmarks/speed.py --to benchmarks/results/speed_cpu.json
    python benchmarks/speed.py --check benchmarks/results/speed_cpu.json    # make bench

The data are skewed interactions of Gowalla's size (29,858 users, 40,981 items, 810,128 rows) and,
for sampled steps, of 100,000 users and items as well. Every figure is the median of ``--repeats``
runs after one that does not count, the device idle before and after. ``--check`` measures again and
fails where a ratio is more than ``--slack`` times as bad as the stored one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import LGConv

from ccdgraph.config import rng
from ccdgraph.data import skewed_interactions
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill.teacher import Ensemble
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import Embeddings, LightGCN
from ccdgraph.objective import BPR, Views
from ccdgraph.ranking import recommend_lists
from ccdgraph.run.folder import hardware, versions
from ccdgraph.sampling import Triplets

GOWALLA = (29_858, 40_981, 810_128)
LARGE = (100_000, 100_000, 5_000_000)
DIM, FANOUT, BATCHES = 64, (10, 10), (256, 1024, 4096, 16_384, 65_536)


class Clock:
    """Median seconds on a device; on a CPU those of its cores, which other work cannot stretch."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.now = time.perf_counter if device.type == "cuda" else time.process_time

    def __call__(self, run: Callable[[], Any]) -> float:
        """Median seconds of ``run`` after one call that does not count."""
        seconds, now = [], self.now
        for _ in range(self.repeats + 1):
            self.wait()
            started = now()
            run()
            self.wait()
            seconds.append(now() - started)
        return statistics.median(seconds[1:])

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def graph_of(sizes: tuple[int, int, int], device: torch.device) -> BipartiteGraph:
    """A skewed graph, its CSR and normalisation made."""
    rows = skewed_interactions(*sizes)
    graph = BipartiteGraph.from_interactions(rows, *sizes[:2]).to(device)
    graph.propagate(torch.zeros(graph.num_nodes, 1, device=device))
    return graph


def propagation(graph: BipartiteGraph, clock: Clock) -> dict[str, float]:
    """One layer through the CSR, through PyG's default, and what gathering alone has to move."""
    device = graph.device
    x = torch.randn(graph.num_nodes, DIM, device=device, requires_grad=True)
    num_edges = graph.edge_index.size(1)
    large, other = torch.zeros(2, 2**26, device=device)
    seconds = clock(lambda: other.copy_(large))
    bandwidth = 2 * large.numel() * large.element_size() / seconds
    weight = torch.randn(x.shape, device=device)
    plain, conv = graph.edge_index.as_tensor(), LGConv().to(device)

    def both(layer: Callable[[Tensor], Tensor]) -> None:
        torch.autograd.grad((layer(x) * weight).sum(), x)

    with torch.no_grad():
        forward = clock(lambda: graph.propagate(x))
        pyg = clock(lambda: conv(x, plain))
    return {
        "directed edges": num_edges,
        "copy bytes/s": bandwidth,
        "gather floor": num_edges * DIM * 4 / bandwidth,
        "CSR forward": forward,
        "CSR forward and backward": clock(lambda: both(graph.propagate)),
        "PyG LGConv forward": pyg,
        "PyG LGConv forward and backward": clock(lambda: both(lambda x: conv(x, plain))),
    }


def evaluation(graph: BipartiteGraph, clock: Clock) -> dict[str, float]:
    """Mask, top 100 and metrics of every user, and the ranking alone."""
    draw = torch.Generator().manual_seed(0)
    sizes = (graph.num_users, graph.num_items)
    out = Embeddings(*(torch.randn(n, DIM, generator=draw) for n in sizes)).to(graph.device)
    rows = skewed_interactions(*sizes, 4 * sizes[0], seed=1).to(graph.device)
    everyone = torch.arange(sizes[0], device=graph.device)
    return {
        "evaluation": clock(lambda: evaluate(out, rows, graph.user_items, ks=(20, 50, 100))),
        "lists of everyone": clock(lambda: recommend_lists(out, everyone, 100, graph.user_items)),
    }


def sampled_steps(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Seconds of a BPR step of LightGCN on the whole graph and on samples, by batch size."""
    device = graph.device
    model = LightGCN(graph.num_users, graph.num_items, DIM, generator=rng("speed")).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    draw = rng("speed", device=device)
    whole, around = (Views(graph, fanout, model.depth, draw) for fanout in (None, FANOUT))
    found: dict[str, Any] = {"fanout": list(FANOUT), "batch": [], "whole": [], "sampled": []}
    term = BPR()

    def step(view: Views, batch: Triplets) -> None:
        loss = term(model(view([term], [batch])), batch)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()

    for size in BATCHES:
        place = torch.randint(len(graph.user), (size,), generator=draw, device=device)
        other = torch.randint(graph.num_items, (size, 1), generator=draw, device=device)
        batch = Triplets(graph.user[place], graph.item[place], other)
        found["batch"].append(size)
        for name, view in (("whole", whole), ("sampled", around)):
            found[name].append(clock(lambda view=view, batch=batch: step(view, batch)))
    found["Adam on all rows"] = clock(adam.step)
    found["Adam on touched rows"] = clock(sparse_adam(model, BATCHES[1]))
    return found


def sparse_adam(model: LightGCN, batch: int) -> Callable[[], Any]:
    """A step of PyTorch's SparseAdam where a batch has touched two of its rows and 20 around each.

    Weight decay is left out, as SparseAdam has none.
    """
    tables = [torch.nn.Parameter(table.detach().clone()) for table in (model.user, model.item)]
    for table in tables:
        rows = torch.randint(len(table), (1, 22 * batch), device=table.device)
        values = torch.randn(rows.size(1), DIM, device=table.device)
        table.grad = torch.sparse_coo_tensor(rows, values, table.shape, check_invariants=False)
    adam = torch.optim.SparseAdam(tables)
    return adam.step


def serving(graph: BipartiteGraph, clock: Clock) -> dict[str, Any]:
    """Scores and top 20 of a batch of users: a student d = 8 and five teachers d = 128."""
    draw, sizes = torch.Generator().manual_seed(0), (graph.num_users, graph.num_items)

    def served(dim: int) -> Embeddings:
        tables = (torch.randn(n, dim, generator=draw) for n in sizes)
        return Embeddings(*tables).to(graph.device)

    student, ensemble = served(8), Ensemble([served(128) for _ in range(5)])
    found: dict[str, Any] = {"batch": [1, 1024], "student": [], "ensemble": []}
    seen = graph.user_items
    for size in found["batch"]:
        user = torch.arange(size, device=graph.device)
        for name, scorer in (("student", student), ("ensemble", ensemble)):
            found[name].append(clock(lambda s=scorer, u=user: recommend_lists(s, u, 20, seen)))
    return found


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """What is compared with the stored values: higher is worse, all free of the machine's speed."""
    layer, serve, steps = found["propagation"], found["serving"], found["steps, 100k"]
    floor, pyg = layer["gather floor"], layer["PyG LGConv forward and backward"]
    return {
        "CSR forward / gather floor": layer["CSR forward"] / floor,
        "CSR forward and backward / gather floor": layer["CSR forward and backward"] / floor,
        "CSR / PyG LGConv, forward and backward": layer["CSR forward and backward"] / pyg,
        "evaluation / lists of everyone": found["evaluation"]["evaluation"]
        / found["evaluation"]["lists of everyone"],
        "sampled / whole step, batch 1024": steps["sampled"][1] / steps["whole"][1],
        "student / ensemble, batch 1": serve["student"][0] / serve["ensemble"][0],
        "student / ensemble, batch 1024": serve["student"][1] / serve["ensemble"][1],
    }


PARTS: dict[str, tuple[tuple[int, int, int], Callable[[BipartiteGraph, Clock], Any]]] = {
    "propagation": (GOWALLA, propagation),
    "steps, Gowalla": (GOWALLA, sampled_steps),
    "steps, 100k": (LARGE, sampled_steps),
    "serving": (GOWALLA, serving),
    "evaluation": (GOWALLA, evaluation),
}


def measure(names: list[str], repeats: int, path: Path | None) -> dict[str, Any]:
    """The named parts, and of the others what ``path`` holds; written there after each."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock, known = Clock(device, repeats), path is not None and path.exists()
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path and known else {}
    for name in names:
        sizes, part = PARTS[name]
        found[name] = {
            "repeats": repeats,
            "threads": torch.get_num_threads(),
            "hardware": hardware(),
            "versions": versions(),
            **part(graph_of(sizes, device), clock),
        }
        print(name, flush=True)
        if PARTS.keys() <= found.keys():
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
    parser.add_argument("--to", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--check", type=Path)
    parser.add_argument("--slack", type=float, default=1.5)
    asked = parser.parse_args()
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
    found = measure(asked.only, asked.repeats, asked.to)
    if asked.check:
        slower = worse(found["ratios"], stored["ratios"], asked.slack)
        sys.exit(f"worse than stored: {', '.join(slower)}" if slower else 0)


if __name__ == "__main__":
    main()
