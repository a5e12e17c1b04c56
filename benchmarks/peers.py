"""ccdgraph beside its peers: the same data, dimension, batch and negatives, in one command.

    make bench-peers    # python benchmarks/peers.py --to benchmarks/results/peers_cpu.json

LightGCN (d = 64, two layers, BPR, batch 2,048, Adam, no penalty) from the same initial tables and
with one uniform negative: ccdgraph's ``fit``; PyG's ``LightGCN`` in the way of the example that
comes with it (an epoch over shuffled edges, one propagation a step); RecBole 1.2.1 with
``--recbole PYTHON``, in that environment (``peers_recbole.py``), whose negatives are never seen
items. Matrix factorisation (d = 64): ccdgraph's MF, and implicit's BPR, which takes one row at a
time. An epoch of ccdgraph and one of PyG come by turns, and both are run from several seeds of
order and negatives; seconds are medians over epochs after the first, on a CPU those that one core
spends, whatever else the machine does. Recall@20 is that of a fifth of the rows, held out, at the
end, mean over seeds.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import peers as rows_of
from peers_world import BATCH, DIM, LR, figures, tables, wait, world
from torch_geometric.nn import LightGCN as PyGLightGCN

from ccdgraph.config import rng
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.stream import Block
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.run.folder import hardware, versions
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit


def ours(
    backbone: str,
    block: Block,
    epochs: int,
    seed: int = 0,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Training by ``fit``, with ``between`` after every epoch; MF starts from its own values."""
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
    return figures(block, seconds, lambda: embed(model, graph))


class PyG:
    """PyG's model and its own loss over the same rows, an epoch a call."""

    def __init__(self, block: Block, seed: int) -> None:
        self.block, device = block, block.train.user.device
        self.num_nodes = block.num_users + block.num_items
        self.user, self.item = block.train.user, block.train.item + block.num_users
        self.edges = torch.stack(
            [torch.cat([self.user, self.item]), torch.cat([self.item, self.user])]
        )
        self.model = PyGLightGCN(self.num_nodes, DIM, num_layers=2)
        with torch.no_grad():
            self.model.embedding.weight.copy_(torch.cat(tables(block)))
        self.model.to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LR)
        self.draw = rng("peers", "pyg", seed, device=device)
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """One epoch."""
        device, draw = self.user.device, self.draw
        low, high = self.block.num_users, self.num_nodes
        started = wait(device)
        order = torch.randperm(len(self.user), generator=draw, device=device)
        for place in order.split(BATCH):
            negative = torch.randint(low, high, (len(place),), generator=draw, device=device)
            pairs = torch.stack(
                [self.user[place].repeat(2), torch.cat([self.item[place], negative])]
            )
            positive, other = self.model(self.edges, pairs).chunk(2)
            # Without its penalty, as the others train without one.
            loss = self.model.recommendation_loss(positive, other, lambda_reg=0.0)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.seconds.append(wait(device) - started)

    @torch.no_grad()
    def embeddings(self) -> Embeddings:
        """Embeddings of everybody."""
        found = self.model.get_embedding(self.edges)
        return Embeddings(*found.split([self.block.num_users, self.block.num_items]))


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
        found[0].append(ours("LightGCN", block, epochs, seed, peer))
        found[1].append(figures(block, peer.seconds, peer.embeddings))
    return over_seeds(found[0]), over_seeds(found[1])


def recbole(block: Block, epochs: int, python: Path) -> dict[str, Any]:
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
        script = Path(__file__).with_name("peers_recbole.py")
        # Absolute but not resolved, as a link leads out of the environment; its logs stay in there.
        command = [python.absolute(), script.resolve(), rows, learnt, "--epochs", str(epochs)]
        subprocess.run(command, check=True, cwd=folder)
        found = dict(np.load(learnt))
    served = Embeddings(torch.from_numpy(found["user"]), torch.from_numpy(found["item"]))
    row = figures(block, found["epochs"].tolist(), lambda: served)
    own = {"seconds an evaluation": float(found["evaluation"]), "its own": float(found["recall"])}
    return {**row, **own}


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


def table(found: dict[str, Any]) -> str:
    """Markdown: one row for each peer, ratios to ccdgraph's model of its kind."""
    head, *rows = rows_of(found)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Train every peer in turn, print the table, write both."""
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
    lightgcn, pyg = by_turns(block, asked.epochs, asked.seeds)
    peers |= {"ccdgraph LightGCN": lightgcn, "PyG LightGCN": pyg}
    if asked.recbole:
        peers["RecBole LightGCN"] = recbole(block.to("cpu"), asked.epochs, asked.recbole)
    peers["ccdgraph MF"] = ours("MF", block, asked.epochs)
    if importlib.util.find_spec("implicit"):
        peers["implicit BPR"] = implicit_bpr(block.to("cpu"), asked.epochs)
    asked.to.parent.mkdir(parents=True, exist_ok=True)
    asked.to.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    asked.to.with_suffix(".md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
