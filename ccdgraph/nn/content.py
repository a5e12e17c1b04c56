"""LightGCN on ids and content: cold entities lean on their features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccdgraph.data.features import read_features
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone, mean_of

_CHUNK = 1024  # new entities compared with all known ones at a time


class ContentLightGCN(Backbone):
    r"""LightGCN whose input is the table row and, gated by degree, a projection of the features.

    .. math:: e^{(0)}_n = \mathrm{id}_n + \sigma\big(a - b \ln(1 + \deg n)\big)\, W x_n, \qquad
        e = \frac{1}{L + 1} \sum_{l=0}^{L} \hat A^l e^{(0)}

    The gates :math:`a, b` and the projections :math:`W` are learnt, one for users and one for
    items; they start at 0, 1 and small values. Propagation: He et al., *LightGCN*, SIGIR 2020,
    https://arxiv.org/abs/2002.02126. The gate is this package's own, after the degree-sensitive
    use of content in Zhou et al., *FREEDOM*, MM 2023, https://arxiv.org/abs/2211.06924. With
    ``num_layers = 0`` it is matrix factorisation with content.

    A new entity none of whose neighbours is known starts as the mean row of the known entities
    with the most similar features.

    Args:
        num_users: rows of the user table ``U``.
        num_items: rows of the item table ``I``.
        dim: width of both tables ``D``.
        item_features: a matrix ``[>= I, M]`` by internal id, or its file
            (:func:`~ccdgraph.data.features.read_features`); rows of items yet to come may follow.
        user_features: the same of users.
        num_layers: rounds of propagation ``L``.
        similar: known entities whose rows a new one starts from.
        std: standard deviation of the initial values.
        generator: source of the initial values.
    """

    user_features: Tensor | None
    item_features: Tensor | None

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        item_features: str | Tensor | None = None,
        user_features: str | Tensor | None = None,
        num_layers: int = 2,
        similar: int = 10,
        std: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_users, num_items, dim, std=std, generator=generator)
        self.num_layers, self.similar = num_layers, similar
        self.project, self.gate = nn.ParameterDict(), nn.ParameterDict()
        for side, given in (("user", user_features), ("item", item_features)):
            matrix = _matrix(given)
            # Not in the state: the file is read again.
            self.register_buffer(f"{side}_features", matrix, persistent=False)
            if matrix is not None:
                shape = (matrix.size(1), dim)
                self.project[side] = nn.Parameter(torch.randn(shape, generator=generator) * std)
                self.gate[side] = nn.Parameter(torch.tensor([0.0, 1.0]))
        if not self.project:
            raise ValueError("'item_features' and 'user_features' are missing; pass one or both")

    def layers(self, x: Tensor, graph: BipartiteGraph) -> list[Tensor]:
        """The gated input and each round of propagation, ``L + 1`` tensors ``[U + I, D]``."""
        if not isinstance(graph, BipartiteGraph):
            raise ValueError("the gates read degrees of the whole graph; leave 'fanout' out")
        degree = torch.cat([graph.user_items.degree, graph.item_users.degree])
        parts = zip(
            ("user", "item"),
            *(t.split([self.num_users, self.num_items]) for t in (x, degree)),
            strict=True,
        )
        layers = [torch.cat([self._input(side, rows, count) for side, rows, count in parts])]
        for _ in range(self.num_layers):
            layers.append(graph.propagate(layers[-1]))
        return layers

    def readout(self, layers: list[Tensor]) -> Tensor:
        """Mean over all layers, ``[U + I, D]``."""
        return mean_of(layers)

    def start(self, table: str, rows: Tensor, unknown: Tensor) -> Tensor:
        """Rows of new entities, those without a known neighbour from similar features."""
        features, own = self._features(table), getattr(self, table).detach()
        new = unknown.nonzero().squeeze(1)
        if features is None or len(new) == 0:
            return rows
        first = len(own)
        if len(features) < first + len(rows):
            raise ValueError(_too_few(table, len(features), first + len(rows)))
        unit, rows = functional.normalize(features), rows.clone()
        for chunk in new.split(_CHUNK):
            score = unit[first + chunk] @ unit[:first].T
            nearest = score.topk(min(self.similar, first), dim=1).indices
            rows[chunk] = own[nearest].mean(1)
        return rows

    def _input(self, side: str, rows: Tensor, degree: Tensor) -> Tensor:
        features = self._features(side)
        if features is None:
            return rows
        if len(features) < len(rows):
            raise ValueError(_too_few(side, len(features), len(rows)))
        level, slope = self.gate[side]
        gate = torch.sigmoid(level - slope * torch.log1p(degree.to(rows.dtype)))
        content: Tensor = features[: len(rows)] @ self.project[side]
        return rows + gate.unsqueeze(1) * content

    def _features(self, side: str) -> Tensor | None:
        features: Tensor | None = self.user_features if side == "user" else self.item_features
        return features


def _matrix(given: str | Tensor | None) -> Tensor | None:
    if isinstance(given, (str, Path)):
        return read_features(given)
    return None if given is None else given.float()


def _too_few(side: str, have: int, need: int) -> str:
    return f"'{side}_features' has {have} rows, the stream {need} {side}s; pass a row for everyone"
