"""What methods that regress a teacher's embeddings share: who is in a batch, and the regressors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccdgraph.distill.lists import each_once
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.sampling import Triplets


def constant(teacher: Embeddings) -> Embeddings:
    """The teacher's embeddings without gradient.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    for name, table in (("user", teacher.user), ("item", teacher.item)):
        if not table.isfinite().all():
            raise ValueError(
                f"'teacher' has NaN or infinite {name} embeddings; it has diverged, train it again"
            )
    return teacher.detach()


def check_inner(out: Embeddings) -> None:
    """Refuse a student whose scores are no inner products of its embeddings."""
    if out.network is not None:
        raise ValueError(
            "the method works on embeddings that score by inner products, but the student scores "
            "pairs by a network; use one that reads scores, such as 'rrd'"
        )


def check_sizes(out: Embeddings, teacher: Embeddings) -> None:
    """Refuse a student that has other entities than its teacher, or no inner products."""
    check_inner(out)
    if (out.num_users, out.num_items) != (teacher.num_users, teacher.num_items):
        raise ValueError(
            f"'teacher' has {teacher.num_users} users and {teacher.num_items} items, the student "
            f"{out.num_users} and {out.num_items}; grow the smaller one"
        )


def check_dim(out: Embeddings, dim: int) -> None:
    """Refuse a student whose embeddings are not as wide as a term was made for."""
    check_inner(out)
    if out.user.size(1) != dim:
        raise ValueError(
            f"the student's embeddings have width {out.user.size(1)}, 'dim' is {dim}; make the "
            "term with the width that the student serves"
        )


def hinted(batch: Triplets) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Users ``[n]``, and positives followed by negatives ``[m]``, each with a mask of one place.

    Off the CPU they repeat (:func:`~ccdgraph.distill.lists.users_once`). An item that is both
    occurs twice. With weight 1/2 for every item this is the aggregation of the released code of
    DE, the two draws of an item's noise included.
    """
    sides = each_once(batch.positive), each_once(batch.negative.flatten())
    item, once = (torch.cat(parts) for parts in zip(*sides, strict=True))
    return each_once(batch.user), (item, once)


def temperature(epoch: int, epochs: int, last: float) -> float:
    """From 1 towards ``last`` by a constant factor an epoch, reached after ``epochs``.

    >>> temperature(0, 4, 1e-2), temperature(2, 4, 1e-2), temperature(9, 4, 1e-2)
    (1.0, 0.1, 0.01)
    """
    return float(last ** min(epoch / epochs, 1.0))


class Experts(nn.Module):
    r"""Regressors from student to teacher embeddings, and the gate that mixes them.

    .. math:: \hat t_e = \sum_{m=1}^{M} z_{em} \big(V_m \, \mathrm{relu}(W_m s_e + a_m) + b_m\big)

    The second layers are linear and :math:`z_{em}` is a number, so it is multiplied into the hidden
    layer and two matrix products stand for all :math:`M` experts; nothing of ``[n, M, dT]`` exists.
    The hidden width is the mean of ``dim`` and ``teacher_dim``, half of them when they are equal.
    Each expert starts like a ``torch.nn.Linear`` of its own.

    Args:
        dim: width of the student's embeddings ``dS``.
        teacher_dim: width of the teacher's ``dT``.
        num_experts: ``M``.
        generator: source of the initial values; they are made on its device.
    """

    def __init__(
        self, dim: int, teacher_dim: int, num_experts: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        hidden = dim // 2 if dim == teacher_dim else (dim + teacher_dim) // 2
        hidden = max(hidden, 1)
        device, self.num_experts = generator.device, num_experts

        def draw(*shape: int, fan_in: int) -> nn.Parameter:
            value = torch.rand(*shape, generator=generator, device=device)
            return nn.Parameter((2 * value - 1) / fan_in**0.5)

        self.gate = draw(teacher_dim, num_experts, fan_in=teacher_dim)
        self.gate_bias = draw(num_experts, fan_in=teacher_dim)
        self.first = draw(dim, num_experts * hidden, fan_in=dim)
        self.first_bias = draw(num_experts * hidden, fan_in=dim)
        self.last = draw(num_experts * hidden, teacher_dim, fan_in=hidden)
        self.last_bias = draw(num_experts, teacher_dim, fan_in=hidden)

    def logits(self, teacher: Tensor) -> Tensor:
        """How well each expert suits an entity, ``[n, dT] -> [n, M]``."""
        return teacher @ self.gate + self.gate_bias

    def choose(self, teacher: Tensor, temperature: Tensor, generator: torch.Generator) -> Tensor:
        r"""Relaxed one-hot choice with fresh Gumbel noise, ``[n, dT] -> [n, M]``.

        .. math:: z = \mathrm{softmax}\big((\log \mathrm{softmax}(A t) + g) / \tau\big)
        """
        log_share = self.logits(teacher).log_softmax(-1)
        noise = torch.empty_like(log_share).exponential_(generator=generator).log()
        return ((log_share - noise) / temperature).softmax(-1)

    def forward(self, student: Tensor, choice: Tensor) -> Tensor:
        """Estimates of the teacher's embeddings, ``[n, dS], [n, M] -> [n, dT]``."""
        hidden = (student @ self.first + self.first_bias).relu()
        hidden = hidden.unflatten(1, (self.num_experts, -1)) * choice.unsqueeze(-1)
        estimate: Tensor = hidden.flatten(1) @ self.last + choice @ self.last_bias
        return estimate
