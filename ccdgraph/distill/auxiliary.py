"""Auxiliary-head distillation: the teacher shapes the embeddings, never the served score."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ccdgraph.distill.hints import check_inner
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.train import Term


class AuxiliaryHead(Term):
    r"""A distillation term on a second head over the student's embeddings.

    .. math:: s'(u, i) = (W_U e_u + b_U)^\top (W_I e_i + b_I), \qquad
        L = \ell_{hard}(s) + w\, \ell_{soft}(s')

    The served score :math:`s(u, i) = e_u^\top e_i` sees the hard labels alone; what is wrong with
    all of the teacher's scores, their level, scale and leaning to some items, can go into the head.
    The gradient that reaches the embeddings is multiplied by ``gradient_scale``; that of the head
    is not. The head is part of the term, so nothing of it is there when the student serves.

    Khani et al., *Bridging the Gap: Unpacking the Hidden Challenges in Knowledge Distillation for
    Online Ranking Systems*, RecSys 2024, https://arxiv.org/abs/2408.14678; gradient scaling: Meta,
    *External Large Foundation Model*, WWW 2025 companion, https://arxiv.org/abs/2502.17494.
    Neither gives a head for inner products: the affine maps are this package's own. They begin as
    the identity, where the term is that of direct distillation.

    Args:
        term: any term that reads the served embeddings.
        dim: width of the student's served embeddings.
        gradient_scale: factor on the gradient into the embeddings; 0 trains the head alone.

    >>> from ccdgraph.sampling import Pairs
    >>> from ccdgraph.train import SoftBCE
    >>> out, place = Embeddings(torch.ones(1, 2), torch.ones(1, 2)), torch.tensor([0])
    >>> batch = Pairs(place, place, torch.tensor([1.0]))
    >>> bool(AuxiliaryHead(SoftBCE(), 2)(out, batch) == SoftBCE()(out, batch))  # at the start
    True
    """

    def __init__(self, term: Term, dim: int, *, gradient_scale: float = 1.0) -> None:
        super().__init__()
        if gradient_scale < 0:
            raise ValueError(f"'gradient_scale' is {gradient_scale}, expected at least 0")
        self.term, self.gradient_scale = term, gradient_scale
        self.user, self.item = _identity(dim), _identity(dim)

    def begin_epoch(self, epoch: int) -> None:
        """Passed on."""
        self.term.begin_epoch(epoch)

    def fixed(self, epoch: int) -> Hashable:
        """That of the term."""
        return self.term.fixed(epoch)

    def draws(self) -> tuple[torch.Generator, ...]:
        """Those of the term."""
        return self.term.draws()

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        """The term on the head's scores."""
        check_inner(out)
        user, item = self.user(self._scaled(out.user)), self.item(self._scaled(out.item))
        head = Embeddings(user, item, ids=out.ids)
        loss: Tensor = self.term(head, batch)
        return loss

    def _scaled(self, x: Tensor) -> Tensor:
        """``x`` to the last bit, with its gradient scaled."""
        if self.gradient_scale == 1:
            return x
        fixed = x.detach()
        return fixed + self.gradient_scale * (x - fixed)


def _identity(dim: int) -> nn.Linear:
    """A map that draws nothing: its values stand before its random ones would."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, dim, dim)
    with torch.no_grad():
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    return linear
