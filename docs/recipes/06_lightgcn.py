"""
Reproduce LightGCN
==================

The layers, against the closed form of the paper (He et al., SIGIR 2020, equation 8)

.. math:: E = \\frac{1}{L+1} \\big(I + \\hat A + \\dots + \\hat A^L\\big) E^{(0)}

with dense matrices, and then a training run. A test of accuracy alone would not notice a wrong
propagation; this one does. For the published splits, ``read_dataset("lightgcn", FOLDER)`` reads the
authors' files.
"""

import torch

from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import LightGCN
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit

block = synthetic_stream(300, 200, 7000, num_blocks=1, drift=0.0)[0]
graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
draw = torch.Generator().manual_seed(0)
model = LightGCN(block.num_users, block.num_items, 16, num_layers=3, std=0.1, generator=draw)

# %%
# Dense, which only a test may be:

rated = torch.zeros(block.num_users, block.num_items)
rated[graph.user, graph.item] = 1
scale = rated.sum(1).rsqrt()[:, None] * rated * rated.sum(0).rsqrt()
scale = scale.nan_to_num(0.0, 0.0, 0.0)  # of an item without edges
size = graph.num_nodes
adjacency = torch.zeros(size, size)
adjacency[: block.num_users, block.num_users :] = scale
adjacency += adjacency.T.clone()
powers = sum(torch.linalg.matrix_power(adjacency, power) for power in range(4)) / 4
closed = powers @ torch.cat([model.user, model.item])
out = model(graph)
torch.testing.assert_close(torch.cat([out.user, out.item]), closed)

# %%
# BPR with one negative a row, Adam, the epoch with the best validation kept:

rows = TripletBatches(
    block.train,
    block.num_items,
    graph.user_items.keys(),
    batch_size=1024,
    num_negatives=1,
    generator=draw,
)


def quality(out, part=block.valid):
    return evaluate(out, part, graph.user_items, ks=(20,)).mean()["recall@20"]


found = fit(
    model,
    graph,
    [Objective((Part(BPR(), rows),))],
    FitConfig(epochs=40, lr=5e-3, patience=5),
    validate=quality,
)
print(
    "best epoch",
    found.best_epoch,
    "test recall@20",
    round(quality(embed(model, graph), block.test), 3),
)
