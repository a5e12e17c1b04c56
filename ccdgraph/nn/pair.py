"""Scores of pairs by a network on their embeddings, where an inner product does not give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_CHUNK = 2**23  # hidden values of a block of users by items


@dataclass(frozen=True, eq=False)
class PairNetwork:
    r"""A weighted product of one half of two embeddings beside a network on the other half.

    .. math:: s(u, i) = w^\top \big[\, p_u \odot q_i \,;\, h_L \,\big], \qquad
        h_1 = \mathrm{relu}(A m_u + B n_i + b_1), \quad h_l = \mathrm{relu}(W_l h_{l-1} + b_l)

    for the rows :math:`(p_u, m_u)` and :math:`(q_i, n_i)`.

    Args:
        user: ``A [H, D / 2]``.
        item: ``B [H, D / 2]``.
        bias: :math:`b_1` ``[H]``.
        layers: the weights and biases of the further layers.
        last: ``w``, first for the product, ``[D / 2 + H_L]``.

    >>> none, rows = torch.zeros(1, 1), (torch.tensor([3.0, 7.0]), torch.tensor([2.0, 7.0]))
    >>> PairNetwork(none, none, none[0], (), torch.ones(2))(*rows)
    tensor(6.)
    """

    user: Tensor
    item: Tensor
    bias: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]
    last: Tensor

    def __call__(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores of pairs of rows that broadcast, ``[..., D], [..., D] -> [...]``."""
        (p, m), (q, n) = user.chunk(2, dim=-1), item.chunk(2, dim=-1)
        product = (p * q) @ self.last[: p.shape[-1]]
        return product + self._deep(m @ self.user.T, n @ self.item.T)

    def block(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores of all pairs of rows, ``[B, D], [I, D] -> [B, I]``.

        Hidden layers of all pairs are never there at once: users pass in pieces, and the backward
        makes those of a piece again.
        """
        size = max(1, _CHUNK // max(1, len(item) * len(self.bias)))
        again = partial(checkpoint, self._block, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([again(x, item) for x in user.split(size)])

    def _block(self, user: Tensor, item: Tensor) -> Tensor:
        (p, m), (q, n) = user.chunk(2, dim=1), item.chunk(2, dim=1)
        product = (p * self.last[: p.shape[1]]) @ q.T
        return product + self._deep((m @ self.user.T).unsqueeze(1), n @ self.item.T)

    def _deep(self, user: Tensor, item: Tensor) -> Tensor:
        hidden = (user + item + self.bias).relu()
        for weight, bias in self.layers:
            hidden = functional.linear(hidden, weight, bias).relu()
        score: Tensor = hidden @ self.last[len(self.last) - hidden.shape[-1] :]
        return score

    def flipped(self) -> PairNetwork:
        """The same scores with users in the role of items."""
        return PairNetwork(self.item, self.user, self.bias, self.layers, self.last)

    def map(self, change: Callable[[Tensor], Tensor]) -> PairNetwork:
        """The same network on changed tensors."""
        layers = tuple((change(weight), change(bias)) for weight, bias in self.layers)
        user, item, bias, last = map(change, (self.user, self.item, self.bias, self.last))
        return PairNetwork(user, item, bias, layers, last)

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, as :meth:`of` takes them."""
        named = {"user": self.user, "item": self.item, "bias": self.bias, "last": self.last}
        for place, (weight, bias) in enumerate(self.layers):
            named |= {f"layers.{place}.weight": weight, f"layers.{place}.bias": bias}
        return named

    @classmethod
    def of(cls, named: dict[str, Tensor]) -> PairNetwork:
        """The network of :meth:`tensors`."""
        num = sum(name.endswith(".weight") for name in named)
        layers = tuple(
            (named[f"layers.{place}.weight"], named[f"layers.{place}.bias"]) for place in range(num)
        )
        return cls(named["user"], named["item"], named["bias"], layers, named["last"])
