"""
What makes it fast on your machine
==================================

``ccdgraph doctor`` says what computes and what would be faster. The layers of LightGCN are sparse
products over a matrix that is normalised once a block; gathering edges, PyG's default, costs
several times as much. Time both here:
"""

import statistics
import time

import torch
from torch_geometric.nn import LGConv

from ccdgraph.cli.doctor import advice, findings
from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph

for name, found in findings():
    print(f"{name:<18}{found}")
print(*advice(), sep="\n")

# %%

block = synthetic_stream(2000, 1500, 60_000, num_blocks=1)[0]
graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
x = torch.randn(graph.num_nodes, 64, requires_grad=True)
edges, weight = graph.edge_index.as_tensor(), graph.edge_weight
gather = LGConv(normalize=False)


def milliseconds(layer):
    """Median of forward and backward."""
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        layer().sum().backward()
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken[1:])


print(f"gathered edges {milliseconds(lambda: gather(x, edges, weight)):.1f} ms")
print(f"sparse product {milliseconds(lambda: graph.propagate(x)):.1f} ms")

# %%
# Beyond that:
#
# * ``device = "auto"`` takes a CUDA device.
# * ``OMP_NUM_THREADS`` at the number of free cores; a suite gives each of ``--jobs N`` its share.
# * ``ccdgraph bench`` trains base teachers once for all strategies that have the same.
# * :doc:`/labels`: what a teacher says, written once and read by every student.
# * ``budget`` of :func:`~ccdgraph.evaluate.evaluate`: larger blocks of scores, fewer calls.
