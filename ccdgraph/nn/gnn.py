"""Any PyG module as a backbone."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone


class GNN(Backbone):
    """Embedding tables in front of a PyG module with ``forward(x, edge_index[, edge_weight])``.

    The module sees both directions of every edge. Raw weights are passed where the module takes
    them, since ``GCNConv`` and its like normalise by themselves.

    Args:
        num_users: rows of the user table ``U``.
        num_items: rows of the item table ``I``.
        dim: width of both tables ``D``.
        module: class of the module, such as ``torch_geometric.nn.GraphSAGE``. It is called with
            ``in_channels``, ``hidden_channels`` and ``out_channels`` equal to ``dim`` as far as
            its signature has them, and with ``options``.
        std: standard deviation of the initial table rows.
        generator: source of the initial values, the module's own included.
        options: further arguments of the module, such as ``num_layers=2``.

    >>> from torch_geometric.nn import GraphSAGE
    >>> GNN(3, 2, 4, module=GraphSAGE, num_layers=2).module
    GraphSAGE(4, 4, num_layers=2)
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        module: type[nn.Module],
        std: float = 0.01,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_users, num_items, dim, std=std, generator=generator)
        sizes = dict.fromkeys(("in_channels", "hidden_channels", "out_channels"), dim)
        accepted = inspect.signature(module).parameters
        seed = torch.randint(2**62, (), generator=generator).item()
        # PyG modules draw from the global generator; the fork gives it back untouched.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            known = {name: size for name, size in sizes.items() if name in accepted}
            self.module = module(**{**known, **options})
        parameters = inspect.signature(self.module.forward).parameters
        self.weighted = "edge_weight" in parameters and bool(
            getattr(self.module, "supports_edge_weight", True)
        )

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        """The module's output for every node, ``[U + I, D] -> [U + I, D']``."""
        edge_index = graph.edge_index.as_tensor()
        if self.weighted:
            out: Tensor = self.module(x, edge_index, edge_weight=graph.raw_weight)
        else:
            out = self.module(x, edge_index)
        return out
