"""Topology distillation: all relations of a batch (FTD), or those of groups (HTD)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ccdgraph.distill.hints import Experts, check_dim, check_sizes, constant, temperature
from ccdgraph.distill.lists import each_once
from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term


class FTD(Term):
    r"""All pairwise cosines of the batch's entities, as the teacher has them.

    With the rows of :math:`S` and :math:`T` of length 1,

    .. math:: \ell = \lVert S S^\top - T T^\top \rVert_F^2
        = \lVert S^\top S \rVert_F^2 - 2 \lVert S^\top T \rVert_F^2 + \lVert T^\top T \rVert_F^2

    over the distinct users and items ``N`` of the batch: the right side has no ``[N, N]`` matrix.
    Kang et al., *Topology Distillation for Recommender System*, KDD 2021,
    https://arxiv.org/abs/2106.08700. Deviation from the released code: a row of zeros has cosine 0
    with everything, where the code divides by its length. The three addends cancel, so a student
    that equals its teacher has a loss of rounding errors, of either sign.

    Args:
        teacher: embeddings whose cosines are wanted; of any width.
    """

    def __init__(self, teacher: Embeddings) -> None:
        super().__init__()
        self.teacher = constant(teacher)

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the ordered pairs of distinct entities of the batch."""
        check_sizes(out, self.teacher)
        user, item, once = _entities(batch)
        student = _unit(torch.cat([rows(out.user, user), rows(out.item, item)])) * once
        teacher = _unit(torch.cat([self.teacher.user[user], self.teacher.item[item]])) * once
        own = (student.T @ student).square().sum()
        cross = (student.T @ teacher).square().sum()
        total: Tensor = own - 2 * cross + (teacher.T @ teacher).square().sum()
        return total


class HTD(Term):
    r"""Relations within groups of the teacher's making, and between groups and entities.

    The gates of the two sides' experts, as in DE, assign each entity to one of ``num_groups``
    groups a side, :math:`z_e = \arg\max v(t_e)`. With cosines :math:`c`, group means
    :math:`P_k = \mathrm{mean}_{z_e = k}\, x_e` and the loss :math:`\ell_{GA}` of the experts,

    .. math:: \ell = \alpha \Big[\sum_{z_a = z_b} \big(c(s_a, s_b) - c(t_a, t_b)\big)^2
        + \sum_{k, b} \big(c(P_k^s, s_b) - c(P_k^t, t_b)\big)^2\Big] + (1 - \alpha) \ell_{GA}

    over the distinct users and items of the batch. ``prototypes="groups"`` replaces the second sum
    by :math:`\sum_{k, l} (c(P_k^s, P_l^s) - c(P_k^t, P_l^t))^2`. Kang et al., *Topology
    Distillation for Recommender System*, KDD 2021, https://arxiv.org/abs/2106.08700. Two habits of
    the released code are the default, for its numbers: pairs whose teacher cosine is not positive
    are left out of the first sum (``positive``), and the student's group means are constants
    (``detach``), which leaves ``prototypes="groups"`` without gradient. Deviations: as in FTD, DE.

    Args:
        teacher: embeddings of any width.
        dim: width of the student's embeddings.
        num_groups: groups a side.
        alpha: share of the topology.
        prototypes: whose cosines with the group means count, ``"entities"`` or ``"groups"``.
        detach: whether the student's group means are constants.
        positive: whether only pairs with a positive teacher cosine count within groups.
        epochs: epochs over which the temperature of the experts falls from 1 to 1e-10.
        generator: source of initial values and noise, on the device of ``teacher``.
    """

    def __init__(
        self,
        teacher: Embeddings,
        dim: int,
        *,
        num_groups: int = 30,
        alpha: float = 0.5,
        prototypes: Literal["entities", "groups"] = "entities",
        detach: bool = True,
        positive: bool = True,
        epochs: int = 100,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if prototypes not in ("entities", "groups"):
            raise ValueError(f"'prototypes' is {prototypes!r}, expected 'entities' or 'groups'")
        self.teacher, self.dim, self.num_groups = constant(teacher), dim, num_groups
        self.alpha, self.prototypes = alpha, prototypes
        self.detach, self.positive = detach, positive
        self.epochs, self.generator = epochs, generator
        self.temperature = torch.ones((), device=generator.device)
        width = teacher.user.size(1)
        self.user_experts = Experts(dim, width, num_groups, generator=generator)
        self.item_experts = Experts(dim, width, num_groups, generator=generator)

    def begin_epoch(self, epoch: int) -> None:
        """Lower the temperature."""
        self.temperature.fill_(temperature(epoch, self.epochs, 1e-10))

    def fixed(self, epoch: int) -> None:
        """Nothing: the temperature is a tensor."""

    def draws(self) -> tuple[torch.Generator, ...]:
        """That of the noise."""
        return (self.generator,)

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the distinct entities of the batch and their pairs."""
        check_sizes(out, self.teacher)
        check_dim(out, self.dim)
        user, item, once = _entities(batch)
        by_user, by_item = rows(out.user, user), rows(out.item, item)
        of_user, of_item = self.teacher.user[user], self.teacher.item[item]
        errors = [
            self._error(self.user_experts, of_user, by_user),
            self._error(self.item_experts, of_item, by_item),
        ]
        assignment = (torch.cat(errors) * once.squeeze(1)).sum()
        group = self.groups(of_user, of_item)
        student, teacher = torch.cat([by_user, by_item]), torch.cat([of_user, of_item])
        within = self._within(_unit(student) * once, _unit(teacher) * once, group)
        topology = within + self._between(student, teacher, group, once)
        return self.alpha * topology + (1 - self.alpha) * assignment

    @torch.no_grad()
    def groups(self, user: Tensor, item: Tensor) -> Tensor:
        """Group of each entity from its teacher's embedding, ``[n, dT], [m, dT] -> [n + m]``."""
        of_user = self.user_experts.logits(user).argmax(1)
        return torch.cat([of_user, self.item_experts.logits(item).argmax(1) + self.num_groups])

    def _error(self, experts: Experts, teacher: Tensor, student: Tensor) -> Tensor:
        choice = experts.choose(teacher, self.temperature, self.generator)
        error: Tensor = (teacher - experts(student, choice)).square().sum(1)
        return error

    def _within(self, student: Tensor, teacher: Tensor, group: Tensor) -> Tensor:
        wanted = teacher @ teacher.T
        counts = group[:, None] == group
        if self.positive:
            counts &= wanted > 0
        return (student @ student.T - wanted).masked_fill(~counts, 0.0).square().sum()

    def _between(self, student: Tensor, teacher: Tensor, group: Tensor, once: Tensor) -> Tensor:
        fixed, size = student.detach() if self.detach else student, 2 * self.num_groups
        ours, theirs = (_unit(_means(x, group, size, once)) for x in (fixed, teacher))
        if self.prototypes == "groups":
            return (ours @ ours.T - theirs @ theirs.T).square().sum()
        student, teacher = _unit(student) * once, _unit(teacher) * once
        return (ours @ student.T - theirs @ teacher.T).square().sum()


def _entities(batch: Triplets) -> tuple[Tensor, Tensor, Tensor]:
    """Users ``[n]``, items, positive or negative ``[m]``, and one place of each ``[n + m, 1]``.

    Off the CPU they repeat (:func:`~ccdgraph.distill.lists.users_once`).
    """
    user, one_user = each_once(batch.user)
    item, one_item = each_once(torch.cat([batch.positive, batch.negative.flatten()]))
    return user, item, torch.cat([one_user, one_item]).unsqueeze(1)


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1, ``[N, D]``; a row of zeros stays one and gets no gradient."""
    length = x.norm(dim=1, keepdim=True)
    unit: Tensor = x / length.masked_fill(length == 0, float("inf"))
    return unit


def _means(x: Tensor, group: Tensor, num_groups: int, once: Tensor) -> Tensor:
    """Mean of the rows of every group that count, ``[N, D] -> [G, D]``; of an empty one, zeros."""
    total = x.new_zeros(num_groups, x.size(1)).index_add(0, group, x * once)
    count = x.new_zeros(num_groups, 1).index_add(0, group, once.to(x.dtype))
    return total / count.clamp(min=1)
