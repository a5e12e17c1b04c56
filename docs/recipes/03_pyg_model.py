"""
Plug in your PyG model
======================

A PyG module with ``forward(x, edge_index[, edge_weight])`` is a backbone as it is:
:class:`~ccdgraph.nn.GNN` puts embedding tables in front of it. In a configuration it is
``backbone = "torch_geometric.nn:GraphSAGE"`` with ``options = { num_layers = 2 }``.
"""

import torch
from torch_geometric.nn import GraphSAGE

from ccdgraph.data import synthetic_stream
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn import GNN

block = synthetic_stream(60, 40, 900, num_blocks=1)[0]
graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
model = GNN(block.num_users, block.num_items, 8, module=GraphSAGE, num_layers=2)
out = model(graph)
print(out.user.shape, out.item.shape)

# %%
# The parity test, to copy: the adapter gives what your model gives on PyG's own data object.

data = graph.to_data()
tables = torch.cat([model.user, model.item])
torch.testing.assert_close(
    torch.cat([out.user, out.item]), model.module(tables, data.edge_index), rtol=0, atol=0
)

# %%
# A layer of your own is written in :meth:`~ccdgraph.nn.Backbone.propagate`. Weights of the
# normalised adjacency are at hand, and :meth:`~ccdgraph.data.graph.BipartiteGraph.propagate` is the
# sparse product with it, several times faster than gathering edges.

from torch_geometric.nn import LGConv

lightgcn_layer = LGConv(normalize=False)(tables, data.edge_index, data.edge_weight)
torch.testing.assert_close(lightgcn_layer, graph.propagate(tables))

# %%
# The contract in one call; an attention layer is checked in the same way.

from ccdgraph.testing import check_backbone

check_backbone(
    lambda *sizes, generator: GNN(*sizes, module=GraphSAGE, num_layers=2, generator=generator)
)
