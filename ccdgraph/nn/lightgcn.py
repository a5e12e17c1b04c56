"""LightGCN: propagation over the normalised graph, without weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone, mean_of


class LightGCN(Backbone):
    r"""Mean over the layers :math:`x, \hat A x, \dots, \hat A^L x`.

    .. math:: e = \frac{1}{L + 1} \sum_{l=0}^{L} \hat A^l x, \qquad \hat A = D^{-1/2} A D^{-1/2}

    He et al., *LightGCN*, SIGIR 2020, https://arxiv.org/abs/2002.02126.

    Args:
        num_users: rows of the user table ``U``.
        num_items: rows of the item table ``I``.
        dim: width of both tables ``D``.
        num_layers: rounds of propagation ``L``.
        std: standard deviation of the initial values.
        generator: source of the initial values.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        num_layers: int = 2,
        std: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_users, num_items, dim, std=std, generator=generator)
        self.num_layers = self.depth = num_layers

    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        """The table and each round of propagation, ``L + 1`` tensors ``[U + I, D]``."""
        layers = [x]
        for _ in range(self.num_layers):
            layers.append(graph.propagate(layers[-1]))
        return layers

    def readout(self, layers: list[Tensor]) -> Tensor:
        """Mean over all layers, ``[U + I, D]``."""
        return mean_of(layers)
