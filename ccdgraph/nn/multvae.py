"""MultVAE, a variational autoencoder of user rows or of item rows, in the shape of a backbone."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.subgraph import Subgraph
from ccdgraph.nn.backbone import Backbone, Embeddings, normal_table

_CHUNK = 2**22  # scores of a block of rows by all columns


class MultVAE(Backbone):
    r"""Variational autoencoder with a multinomial likelihood, one hidden layer on each side.

    .. math::
        h_u = \tanh\Big(\sum_{i \in N_u} \frac{w_{ui}}{\lVert w_u \rVert_2} E_i + b\Big), \quad
        z_u \sim \mathcal N\big(\mu(h_u), \sigma^2(h_u)\big), \quad
        s_{ui} = \langle \tanh(V z_u + c),\, G_i \rangle + g_i

    The hidden decoder row with a constant 1 is the user embedding, a decoder row with its bias the
    item embedding, so the score stays an inner product and no dense row of the catalogue is made.
    There is no user table: a new user needs edges alone. In training the input entries are dropped
    out and ``z`` is drawn; in evaluation ``z`` is the mean.

    Liang et al., *Variational Autoencoders for Collaborative Filtering*, WWW 2018,
    https://arxiv.org/abs/1802.05814.

    Args:
        num_users: users ``U`` (they own no parameters).
        num_items: rows of the encoder and decoder tables ``I``.
        dim: width of the hidden layers ``H``.
        latent: width of ``z``; ``dim`` when 0.
        dropout: probability that an input entry is left out in training.
        std: standard deviation of the initial table rows.
        generator: source of the initial values.
    """

    entity_tables: ClassVar[dict[str, str]] = {
        "encoder": "item",
        "decoder": "item",
        "bias": "item",
    }
    loss = "multinomial"
    # Whose rows are encoded.
    rows: ClassVar[Literal["user", "item"]] = "user"

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        latent: int = 0,
        dropout: float = 0.5,
        std: float = 0.05,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_users, num_items, dim, std=std, generator=generator)
        self.encoder = self.item if self.rows == "user" else self.user
        del self.user, self.item
        latent, columns = latent or dim, len(self.encoder)
        self.dropout = dropout
        self.decoder = normal_table(columns, dim, std, generator)
        self.bias = nn.Parameter(torch.zeros(columns, 1))
        self.encoder_bias = nn.Parameter(torch.zeros(dim))
        self.posterior = nn.Parameter(_glorot(dim, 2 * latent, generator))
        self.posterior_bias = nn.Parameter(torch.zeros(2 * latent))
        self.hidden = nn.Parameter(_glorot(latent, dim, generator))
        self.hidden_bias = nn.Parameter(torch.zeros(dim))
        self._noise = torch.Generator()

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Take the dropout and the noise of the coming epoch from ``generator``."""
        self._noise = generator

    def forward(self, graph: BipartiteGraph | Subgraph) -> Embeddings:
        """Embeddings of width ``H + 1`` and the posterior of every row."""
        if isinstance(graph, Subgraph):
            raise ValueError("MultVAE reads whole rows of its graph; set 'fanout' to none")
        self.check_graph(graph)
        return self.reconstruct(graph)

    def reconstruct(self, graph: BipartiteGraph) -> Embeddings:
        """Embeddings of the rows as users and of the columns as items, from the rows of users."""
        hidden = torch.tanh(self._encode(graph) + self.encoder_bias)
        mean, log_variance = (hidden @ self.posterior + self.posterior_bias).chunk(2, dim=1)
        code = mean
        if self.training:
            code = mean + self._draw(mean, normal=True) * (0.5 * log_variance).exp()
        decoded = torch.tanh(code @ self.hidden + self.hidden_bias)
        ones = decoded.new_ones(graph.num_users, 1)
        return Embeddings(
            torch.cat([decoded, ones], dim=1),
            torch.cat([self.decoder, self.bias], dim=1),
            posterior=(mean, log_variance),
        )

    def _encode(self, graph: BipartiteGraph) -> Tensor:
        norm = graph.weight.new_zeros(graph.num_users)
        norm.index_add_(0, graph.user, graph.weight.square())
        weight: Tensor = graph.weight * norm.rsqrt()[graph.user]
        if self.training and self.dropout > 0:
            keep = self._draw(weight, normal=False) >= self.dropout
            weight = weight * keep / (1 - self.dropout)
        return graph.sum_over_items(self.encoder, weight)

    def _draw(self, like: Tensor, *, normal: bool) -> Tensor:
        source = torch.randn if normal else torch.rand
        noise: Tensor = source(like.shape, generator=self._noise, device=self._noise.device)
        return noise.to(like.device)


class ItemMultVAE(MultVAE):
    r"""MultVAE of item rows: each item is encoded from its users and reconstructs them.

    With the parts of :class:`MultVAE`, users and items exchanged, the likelihood of an item is a
    softmax over users,

    .. math:: \log p(u \mid i) = f_{iu} - \log \sum_v e^{f_{iv}}, \qquad
        f_{iu} = \langle \tanh(V z_i + c),\, G_u \rangle + g_u, \qquad
        s_{ui} = \log p(u \mid i) + \log(n_i + 1)

    It leaves a constant of each item open, by which a user's items would be ordered at will, so
    in evaluation they are ordered by :math:`p(i \mid u)`: Bayes' rule with a prior that grows with
    the weight :math:`n_i` of the item's edges, in two further columns. In training, where only
    :math:`f` is read, they are 0. The item-side autoencoder is that of Sedhain et al., *AutoRec*,
    WWW 2015, https://doi.org/10.1145/2740908.2742726, with the likelihood of :class:`MultVAE`. It
    learns from batches of items.
    """

    entity_tables: ClassVar[dict[str, str]] = {
        "encoder": "user",
        "decoder": "user",
        "bias": "user",
    }
    rows: ClassVar[Literal["user", "item"]] = "item"

    def forward(self, graph: BipartiteGraph | Subgraph) -> Embeddings:
        """Embeddings of width ``H + 2`` and the posterior of every item."""
        if isinstance(graph, Subgraph):
            raise ValueError("ItemMultVAE reads whole rows of its graph; set 'fanout' to none")
        self.check_graph(graph)
        flipped = self.reconstruct(graph.flipped)
        item, user = flipped.user, flipped.item
        offset = item.new_zeros(len(item), 1)
        if not self.training:
            offset = _log_prior(graph) - _log_size(item, user)
        return Embeddings(
            torch.cat([user, user.new_ones(len(user), 1)], dim=1),
            torch.cat([item, offset], dim=1),
            posterior=flipped.posterior,
        )


def _log_prior(graph: BipartiteGraph) -> Tensor:
    """Logarithm of the weight of every item's edges and 1 more, ``[I, 1]``."""
    total = graph.weight.new_zeros(graph.num_items)
    return total.index_add_(0, graph.item, graph.weight).log1p().unsqueeze(1)


def _log_size(row: Tensor, column: Tensor) -> Tensor:
    """Log-sum-exp over all columns of every row's inner products, by chunks, ``[N, 1]``."""
    size = max(1, _CHUNK // max(1, len(column)))
    parts = [(part @ column.T).logsumexp(1, keepdim=True) for part in row.split(size)]
    return torch.cat(parts)


def _glorot(fan_in: int, fan_out: int, generator: torch.Generator | None) -> Tensor:
    bound = (6 / (fan_in + fan_out)) ** 0.5
    weight: Tensor = (torch.rand(fan_in, fan_out, generator=generator) * 2 - 1) * bound
    return weight
