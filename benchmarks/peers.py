"""ccdgraph beside its peers: the same data, dimension, batch and negatives, in one command.

    make bench-peers    # python benchmarks/peers.py --to benchmarks/results/peers_cpu.json

LightGCN (d = 64, two layers, BPR, one negative, batch 2,048): ccdgraph's ``fit``, and PyG's
``LightGCN`` in the way of the example that comes with it (an epoch over shuffled edges, uniform
negatives, one propagation a step; evaluation by batches of users). Matrix factorisation (d = 64):
ccdgraph's MF, and implicit's BPR, which takes one row at a time. Seconds are medians
over epochs after the first, on a CPU those that one core spends, whatever else the machine does;
Recall@20 is that of a fifth of the rows, held out, at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch_geometric.nn import LightGCN as PyGLightGCN

from ccdgraph.config import rng
from ccdgraph.data import Events, Vocabulary, skewed_interactions, split_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.stream import Block
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.run.folder import hardware, versions
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit

DIM, BATCH, LR = 64, 2048, 5e-3


def world(users: int, items: int, rows: int, device: torch.device) -> Block:
    """One block of skewed interactions, a fifth of them held out."""
    drawn = skewed_interactions(users, items, rows)
    events = Events.from_rows(drawn, Vocabulary(range(users)), Vocabulary(range(items)))
    return split_stream(events, base=1.0, num_blocks=0, ratios=(0.8, 0.0, 0.2))[0].to(device)


def wait(device: torch.device) -> float:
    """The clock once the device is idle; of the process alone where that is the CPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def figures(
    block: Block, seconds: list[float], embeddings: Callable[[], Embeddings]
) -> dict[str, Any]:
    """Seconds of an epoch and of a full ranking with metrics, and the recall that it finds."""
    device = block.train.user.device
    seen = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    taken = []
    for _ in range(3):
        started = wait(device)
        found = evaluate(embeddings(), block.test, seen.user_items, ks=(20,))
        taken.append(wait(device) - started)
    return {
        "seconds an epoch": statistics.median(seconds[1:]),
        "epochs": seconds,
        "seconds an evaluation": statistics.median(taken),
        "recall@20": found.mean()["recall@20"],
    }


def ours(backbone: str, block: Block, epochs: int) -> dict[str, Any]:
    """Training by ``fit``."""
    graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    model = BackboneConfig(backbone, DIM).build(
        block.num_users, block.num_items, generator=rng("peers")
    )
    device, exclude = graph.device, graph.user_items.keys()
    batches = TripletBatches(
        block.train,
        block.num_items,
        exclude,
        batch_size=BATCH,
        generator=rng("peers", "order", device=device),
    )
    marks = [wait(device)]
    fit(
        model.to(device),
        graph,
        [Objective((Part(BPR(), batches),))],
        FitConfig(epochs=epochs, lr=LR, weight_decay=0.0),
        on_epoch=lambda *_: marks.append(wait(device)),
    )
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return figures(block, seconds, lambda: embed(model, graph))


def pyg(block: Block, epochs: int) -> dict[str, Any]:
    """PyG's model and its own loss, over the same rows."""
    device, num_users = block.train.user.device, block.num_users
    num_nodes = num_users + block.num_items
    user, item = block.train.user, block.train.item + num_users
    edges = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    torch.manual_seed(0)
    model = PyGLightGCN(num_nodes, DIM, num_layers=2).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    seconds = []
    for _ in range(epochs):
        started = wait(device)
        for place in torch.randperm(len(user), device=device).split(BATCH):
            size = (len(place),)
            negative = torch.randint(num_users, num_nodes, size, device=device)
            pairs = torch.stack([user[place].repeat(2), torch.cat([item[place], negative])])
            positive, other = model(edges, pairs).chunk(2)
            # Without its penalty, as the others train without one.
            loss = model.recommendation_loss(positive, other, lambda_reg=0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(wait(device) - started)

    def embeddings() -> Embeddings:
        with torch.no_grad():
            return Embeddings(*model.get_embedding(edges).split([num_users, block.num_items]))

    return figures(block, seconds, embeddings)


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
    lines = [
        "| | s an epoch | times ours | s an evaluation | Recall@20 |",
        "|---|---|---|---|---|",
    ]
    kinds = (("ccdgraph LightGCN", "PyG LightGCN"), ("ccdgraph MF", "implicit BPR"))
    for names in kinds:
        reference = found["peers"][names[0]]["seconds an epoch"]
        for name in names:
            if (row := found["peers"].get(name)) is None:
                lines.append(f"| {name} | not installed | | | |")
                continue
            ratio = row["seconds an epoch"] / reference
            lines.append(
                f"| {name} | {row['seconds an epoch']:.2f} | {ratio:.1f} | "
                f"{row['seconds an evaluation']:.2f} | {row['recall@20']:.4f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train every peer in turn, print the table, write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=3, default=[3000, 2500, 100_000])
    parser.add_argument("--epochs", type=int, default=6)
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
    peers["ccdgraph LightGCN"] = ours("LightGCN", block, asked.epochs)
    peers["PyG LightGCN"] = pyg(block, asked.epochs)
    peers["ccdgraph MF"] = ours("MF", block, asked.epochs)
    if importlib.util.find_spec("implicit"):
        peers["implicit BPR"] = implicit_bpr(block.to("cpu"), asked.epochs)
    asked.to.parent.mkdir(parents=True, exist_ok=True)
    asked.to.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    asked.to.with_suffix(".md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
