"""NeuMF: a product of embeddings and a network on them, summed up."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone
from ccdgraph.nn.pair import PairNetwork


class NeuMF(Backbone):
    r"""Neural matrix factorisation: GMF on one half of the embeddings, an MLP on the other.

    .. math:: s(u, i) = w^\top \big[\, p_u \odot q_i \,;\, \mathrm{MLP}(m_u, n_i) \,\big]

    The tables hold the rows :math:`(p, m)`; :class:`~ccdgraph.nn.pair.PairNetwork` is the rest. The
    widths of the network halve from ``dim / 2`` on. It is no inner product, so what needs one
    (regressing embeddings, proxies by moving averages, vector search) refuses it. He et al.,
    *Neural Collaborative Filtering*, WWW 2017, https://arxiv.org/abs/1708.05031. Deviations: it
    learns the order of pairs (BPR) like the other backbones, not their labels; both halves are
    trained together from the start; the layers start by Glorot's rule, as values of 0.01 leave
    the network without gradient.

    Args:
        num_users: rows of the user table ``U``.
        num_items: rows of the item table ``I``.
        dim: width of both tables, even.
        num_layers: layers of the network.
        std: standard deviation of the initial table rows.
        generator: source of the initial values.
    """

    depth: int | None = 0
    inner: ClassVar[bool] = False

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        num_layers: int = 3,
        std: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_users, num_items, dim, std=std, generator=generator)
        if dim % 2 or num_layers < 1:
            raise ValueError(
                f"'dim' is {dim} and 'num_layers' {num_layers}; NeuMF halves an even 'dim' and has "
                "at least one layer"
            )
        half = dim // 2
        widths = [max(1, half // 2**layer) for layer in range(num_layers)]
        self.of_user = _glorot(widths[0], half, generator)
        self.of_item = _glorot(widths[0], half, generator)
        pairs = pairwise(widths)
        self.weights = nn.ParameterList(_glorot(b, a, generator) for a, b in pairs)
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths)
        # The product starts as that of matrix factorisation.
        deep = _glorot(1, widths[-1], generator)[0].detach()
        self.last = nn.Parameter(torch.cat([torch.ones(half), deep]))

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        """The table rows as they are; the graph is not read."""
        return x

    def network(self) -> PairNetwork:
        """What scores a pair of rows."""
        first, *others = self.biases
        layers = tuple(zip(self.weights, others, strict=True))
        return PairNetwork(self.of_user, self.of_item, first, layers, self.last)


def _glorot(rows: int, columns: int, generator: torch.Generator | None) -> nn.Parameter:
    bound = (6 / (rows + columns)) ** 0.5
    return nn.Parameter((torch.rand(rows, columns, generator=generator) * 2 - 1) * bound)
