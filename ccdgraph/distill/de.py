"""DE: distillation experts, chosen by the teacher's embedding of each entity."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph.distill.hints import Experts, check_dim, check_sizes, constant, hinted, temperature
from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term


class DE(Term):
    r"""The teacher's embeddings, regressed from the student's by gated experts.

    With the experts :math:`E_m` of :class:`~ccdgraph.distill.hints.Experts` and Gumbel noise
    :math:`g`,

    .. math:: \ell = \sum_e c_e \Big\lVert t_e - \sum_{m=1}^{M} z_{em} E_m(s_e) \Big\rVert^2,
        \qquad z_e = \mathrm{softmax}\Big(\frac{\log \mathrm{softmax}(A t_e + a) + g}{\tau}\Big)

    over the distinct users (:math:`c_e = 1`), positives and negatives (1/2 each) of the batch.
    Users and items have experts of their own; :math:`\tau` falls from 1 to ``last_temperature``.
    Kang et al., *DE-RRD*, CIKM 2020, https://arxiv.org/abs/2012.04357; DE-RRD is this term beside
    an RRD term. Deviations from the released code: the experts are folded into two matrix products
    (the same values); log-softmax instead of ``log(softmax + 1e-10)``; :math:`\tau` of epoch ``e``
    is that of the equation, where the code is one epoch late.

    Args:
        teacher: embeddings to regress, ``[U, dT]`` and ``[I, dT]``.
        dim: width of the student's embeddings.
        num_experts: experts ``M`` a side.
        epochs: epochs over which the temperature falls.
        last_temperature: where it ends.
        generator: source of initial values and noise, on the device of ``teacher``.
    """

    def __init__(
        self,
        teacher: Embeddings,
        dim: int,
        *,
        num_experts: int = 30,
        epochs: int = 1000,
        last_temperature: float = 1e-10,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.teacher, self.dim = constant(teacher), dim
        self.epochs, self.last_temperature, self.generator = epochs, last_temperature, generator
        self.temperature = torch.ones((), device=generator.device)
        teacher_dim = teacher.user.size(1)
        self.user_experts = Experts(dim, teacher_dim, num_experts, generator=generator)
        self.item_experts = Experts(dim, teacher_dim, num_experts, generator=generator)

    def begin_epoch(self, epoch: int) -> None:
        """Lower the temperature."""
        self.temperature.fill_(temperature(epoch, self.epochs, self.last_temperature))

    def fixed(self, epoch: int) -> None:
        """Nothing: the temperature is a tensor."""

    def draws(self) -> tuple[torch.Generator, ...]:
        """That of the noise."""
        return (self.generator,)

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the distinct entities of the batch."""
        check_sizes(out, self.teacher)
        check_dim(out, self.dim)
        (user, one_user), (item, one_item) = hinted(batch)
        of_users = self._error(self.user_experts, self.teacher.user[user], rows(out.user, user))
        of_items = self._error(self.item_experts, self.teacher.item[item], rows(out.item, item))
        return (of_users * one_user).sum() + 0.5 * (of_items * one_item).sum()

    def _error(self, experts: Experts, teacher: Tensor, student: Tensor) -> Tensor:
        """Squared error of every row ``[n]``."""
        choice = experts.choose(teacher, self.temperature, self.generator)
        error: Tensor = (teacher - experts(student, choice)).square().sum(1)
        return error
