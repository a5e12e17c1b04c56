"""ccdgraph beside its peers: the same data, dimension, batch and negatives, in one command.

    make bench-peers    # python benchmarks/peers.py --to benchmarks/results/peers_cpu.json
    python benchmarks/peers.py --sizes 29858 40981 810128 --epochs 8 --seeds 2 --recbole PYTHON
        --to benchmarks/results/peers_cuda.json    # on one line; on CUDA if there is a device

LightGCN (d = 64, two layers, BPR, batch 2,048, Adam, no penalty) from the same initial tables and
with one uniform negative: ccdgraph's ``fit``; PyG's ``LightGCN`` in the way of the example that
comes with it (an epoch over shuffled edges, one propagation a step); RecBole 1.2.1 with ``--recbole
PYTHON``, in that environment (``parts/peers_recbole.py``), whose negatives are never seen items.
Matrix factorisation (d = 64): ccdgraph's MF, and implicit's BPR, which takes one row at a time. An
epoch of ccdgraph and one of PyG come by turns, and both are run from several seeds of order and
negatives; seconds are medians over epochs after the first, on a CPU those that one core spends,
whatever else the machine does. On a CUDA device RecBole runs there as well, and an epoch alone
tells the most bytes that training takes. Recall@20 is that of a fifth of the rows, held out, at the
end, mean over seeds. What is measured is written after every peer.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from figures import peers as rows_of
from parts.peers_pyg import PyG
from parts.peers_world import BATCH, DIM, LR, figures, peak, tables, wait, world

from ccdgraph.config import rng
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.stream import Block
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.run.folder import hardware, versions
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit


def train(
    backbone: str,
    block: Block,
    epochs: int,
    seed: int = 0,
    between: Callable[[], None] = lambda: None,
) -> tuple[list[float], Callable[[], Embeddings]]:
    """Training by ``fit``, with ``between`` after every epoch; MF starts from its own values.

    Returns seconds of every epoch, and what embeds everybody.
    """
    graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    model = BackboneConfig(backbone, DIM).build(
        block.num_users, block.num_items, generator=rng("peers")
    )
    if backbone == "LightGCN":
        with torch.no_grad():
            for own, start in zip((model.user, model.item), tables(block), strict=True):
                own.copy_(start)
    device = graph.device
    nothing = torch.empty(0, dtype=torch.int64, device=device)  # as in PyG's example
    batches = TripletBatches(
        block.train,
        block.num_items,
        nothing,
        batch_size=BATCH,
        generator=rng("peers", "order", seed, device=device),
    )
    seconds, started = [], wait(device)

    def done(*_: Any) -> None:
        nonlocal started
        seconds.append(wait(device) - started)
        between()
        started = wait(device)

    fit(
        model.to(device),
        graph,
        [Objective((Part(BPR(), batches),))],
        FitConfig(epochs=epochs, lr=LR, weight_decay=0.0),
        on_epoch=done,
    )
    return seconds, lambda: embed(model, graph)


def ours(backbone: str, block: Block, epochs: int, **options: Any) -> dict[str, Any]:
    """Figures of :func:`train`."""
    return figures(block, *train(backbone, block, epochs, **options))


def over_seeds(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of seconds and mean recall of one peer's seeds."""
    recall = [one["recall@20"] for one in found]
    median = {
        name: statistics.median(one[name] for one in found)
        for name in ("seconds an epoch", "seconds an evaluation")
    }
    epochs = [one["epochs"] for one in found]
    return {**median, "epochs": epochs, "recall@20": statistics.fmean(recall), "recalls": recall}


def by_turns(block: Block, epochs: int, seeds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ccdgraph's LightGCN and PyG's, an epoch of each by turns."""
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for seed in range(seeds):
        peer = PyG(block, seed)
        found[0].append(ours("LightGCN", block, epochs, seed=seed, between=peer))
        found[1].append(figures(block, peer.seconds, peer.embeddings))
    device = block.train.user.device
    peaks = (
        peak(device, lambda: train("LightGCN", block, 1)),
        peak(device, lambda: PyG(block, 0)()),
    )
    mine, other = (over_seeds(f) | {"peak bytes": p} for f, p in zip(found, peaks, strict=True))
    return mine, other


def recbole(block: Block, epochs: int, python: Path, device: str) -> dict[str, Any]:
    """RecBole's LightGCN, in its own environment; its evaluation is its own, on the same rows."""
    import numpy as np

    user, item = tables(block)
    with tempfile.TemporaryDirectory() as folder:
        rows, learnt = Path(folder) / "rows.npz", Path(folder) / "found.npz"
        parts = {"train": block.train, "test": block.test}
        pairs = {
            f"{n}_{c}": getattr(part, c) for n, part in parts.items() for c in ("user", "item")
        }
        np.savez(rows, user=user, item=item, layers=2, lr=LR, batch=BATCH, **pairs)
        script = Path(__file__).parent / "parts" / "peers_recbole.py"
        # Absolute but not resolved, as a link leads out of the environment; its logs stay in there.
        command = [python.absolute(), script.resolve(), rows, learnt, "--epochs", str(epochs)]
        subprocess.run([*command, "--device", device], check=True, cwd=folder)
        found = dict(np.load(learnt))
    served = Embeddings(torch.from_numpy(found["user"]), torch.from_numpy(found["item"]))
    row = figures(block, found["epochs"].tolist(), lambda: served)
    own = {"seconds an evaluation": float(found["evaluation"]), "its own": float(found["recall"])}
    return {**row, **own, "peak bytes": int(found["peak"])}


def implicit_bpr(block: Block, epochs: int) -> dict[str, Any]:
    """BPR of implicit on the CPU, an epoch by the difference of a longer and a shorter fit.

    Its recall is that of the longer, of eleven times the epochs: plain gradient descent needs them.
    """
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    shape = (block.num_users, block.num_items)
    user, item = block.train.user.cpu().numpy(), block.train.item.cpu().numpy()
    matrix = csr_matrix((torch.ones(len(user)).numpy(), (user, item)), shape)
    settings = {"factors": DIM - 1, "learning_rate": 0.05, "regularization": 0.002}  # and a bias
    threads = torch.get_num_threads()
    taken = []
    for iterations in (epochs, 11 * epochs):
        model = BayesianPersonalizedRanking(
            **settings, iterations=iterations, random_state=0, num_threads=threads, use_gpu=False
        )
        started = wait(torch.device("cpu"))
        model.fit(matrix, show_progress=False)
        taken.append(wait(torch.device("cpu")) - started)
    epoch = (taken[1] - taken[0]) / (10 * epochs)  # what both spend before the first epoch cancels
    user, item = (torch.from_numpy(x) for x in (model.user_factors, model.item_factors))
    found = figures(block, [epoch] * 2, lambda: Embeddings(user, item))
    return found | {"epochs": taken}


def trained(
    block: Block, epochs: int, seeds: int, python: Path | None
) -> Iterator[dict[str, dict[str, Any]]]:
    """Figures of one peer after another; the one in an environment of its own comes last."""
    lightgcn, pyg = by_turns(block, epochs, seeds)
    yield {"ccdgraph LightGCN": lightgcn, "PyG LightGCN": pyg}
    yield {"ccdgraph MF": ours("MF", block, epochs)}
    if importlib.util.find_spec("implicit"):
        yield {"implicit BPR": implicit_bpr(block.to("cpu"), epochs)}
    if python:
        device = block.train.user.device.type
        yield {"RecBole LightGCN": recbole(block.to("cpu"), epochs, python, device)}


def table(found: dict[str, Any]) -> str:
    """Markdown: one row for each peer, ratios to ccdgraph's model of its kind."""
    head, *rows = rows_of(found)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Train every peer in turn, write both files after each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=3, default=[3000, 2500, 100_000])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recbole", type=Path, help="the Python of RecBole's environment")
    parser.add_argument("--to", type=Path, required=True)
    asked = parser.parse_args()
    for message in (
        "Sparse CSR tensor support is in beta",
        "Sparse invariant checks are implicitly",
    ):
        warnings.filterwarnings("ignore", message)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    block = world(*asked.sizes, device)
    peers: dict[str, Any] = {}
    found: dict[str, Any] = {
        "users": block.num_users,
        "items": block.num_items,
        "train rows": len(block.train),
        "steps an epoch": math.ceil(len(block.train) / BATCH),
        "threads": torch.get_num_threads(),
        "hardware": hardware(),
        "versions": versions(),
        "peers": peers,
    }
    for rows in trained(block, asked.epochs, asked.seeds, asked.recbole):
        peers |= rows
        asked.to.parent.mkdir(parents=True, exist_ok=True)
        asked.to.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        asked.to.with_suffix(".md").write_text(table(found), encoding="utf-8")
        print(", ".join(rows), flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
