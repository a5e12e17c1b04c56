"""Regression: the teacher's embeddings as a linear map of the student's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ccdgraph.distill.hints import check_dim, check_sizes, constant, hinted
from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term


class Regression(Term):
    r"""Squared error of the teacher's embeddings, regressed from the student's.

    .. math:: \ell = \sum_e c_e \lVert t_e - (W s_e + b) \rVert^2

    over the distinct users (:math:`c_e = 1`), positives and negatives (1/2 each) of the batch, as
    in :class:`~ccdgraph.distill.de.DE`; users and items have maps of their own. Romero et al.,
    *FitNets: Hints for Thin Deep Nets*, ICLR 2015, https://arxiv.org/abs/1412.6550. Deviations:
    the hint is the table of embeddings, without a hidden layer to choose, and the term stands
    beside the hard loss, where the paper has a stage of its own before it.

    The maps are all its state, so they go on with a refreshed teacher by ``load_state_dict``. What
    they learnt holds for it once :func:`~ccdgraph.distill.alignment.aligned` has turned it back.

    Args:
        teacher: embeddings to regress, ``[U, dT]`` and ``[I, dT]``.
        dim: width of the student's embeddings ``dS``.
        generator: source of the initial maps; they are made on its device.
    """

    def __init__(self, teacher: Embeddings, dim: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.teacher, self.dim = constant(teacher), dim
        self.user, self.item = (_linear(dim, teacher.user.size(1), generator) for _ in range(2))

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the distinct entities of the batch."""
        check_sizes(out, self.teacher)
        check_dim(out, self.dim)
        (user, one_user), (item, one_item) = hinted(batch)
        of_users = self.teacher.user[user] - self.user(rows(out.user, user))
        of_items = self.teacher.item[item] - self.item(rows(out.item, item))
        users: Tensor = (of_users.square().sum(1) * one_user).sum()
        items: Tensor = (of_items.square().sum(1) * one_item).sum()
        return users + 0.5 * items


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    layer: nn.Module = skip_init(nn.Linear, inputs, outputs, device=generator.device)
    for value in layer.parameters():
        nn.init.uniform_(value, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
