"""PHR: personalised hint regression, a regressor for every entity from a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccdgraph.data.interactions import UserItems
from ccdgraph.data.sparse import RowMean
from ccdgraph.distill.hints import check_dim, check_sizes, constant, hinted
from ccdgraph.distill.lists import transposed
from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term


class PHR(Term):
    r"""The teacher's embeddings, regressed by matrices that a network makes for each entity.

    .. math:: \ell = \sum_e c_e \lVert t_e - \Theta_e s_e \rVert^2, \qquad
        \Theta_e = p(v_e) \in \mathbb{R}^{dT \times dS}, \qquad
        v_e = \tfrac12 \Big(t_e + \frac{1}{|N_e|} \sum_{n \in N_e} t_n\Big)

    over the distinct users (:math:`c_e = 1`), positives and negatives (1/2 each) of the batch, with
    :math:`N_e` the training neighbours of ``e``; without one, :math:`v_e = t_e`. The network
    ``p`` has one hidden layer. Kang et al., *Personalized Knowledge
    Distillation for Recommender System*, Knowledge-Based Systems 2022,
    https://doi.org/10.1016/j.knosys.2021.107958. No code of the authors is public: the equations
    follow the description that comes with https://github.com/hieunm44/hyperkdma, whose printed sum
    over the entities *without* an interaction contradicts its text; here it is over those with one,
    once for the whole graph rather than inside a batch. That code itself enriches nothing
    (``enrich = false`` as a setting), takes twice the width for MF (``hidden = 1``) and starts like
    ``torch.nn.Linear`` (``small_start = false``).

    Args:
        teacher: embeddings to regress, ``[U, dT]`` and ``[I, dT]``.
        dim: width of the student's embeddings ``dS``.
        seen: training pairs that enrich the context (``BipartiteGraph.user_items``); ``None``
            takes :math:`v_e = t_e`.
        shared: one network for users and items, or one for each side.
        hidden: width of the hidden layer as a share of ``dT + dT dS``.
        small_start: the last layer starts within 0.01 of 0, so that the first estimates are near 0.
        generator: source of the initial values, on the device of ``teacher``.
    """

    def __init__(
        self,
        teacher: Embeddings,
        dim: int,
        *,
        seen: UserItems | None = None,
        shared: bool = True,
        hidden: float = 0.5,
        small_start: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not hidden > 0:
            raise ValueError(f"'hidden' is {hidden}, expected a share above 0, such as 0.5")
        self.teacher, self.dim = constant(teacher), dim
        self.context = self.teacher if seen is None else enriched(self.teacher, seen)
        width, size = teacher.user.size(1), (teacher.user.size(1), dim)
        inner = max(int(hidden * (width + width * dim)), 1)
        bound = 0.01 if small_start else inner**-0.5
        self.user_network = Hypernetwork(*size, inner, bound, generator=generator)
        self.item_network = (
            self.user_network if shared else Hypernetwork(*size, inner, bound, generator=generator)
        )

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the distinct entities of the batch."""
        check_sizes(out, self.teacher)
        check_dim(out, self.dim)
        (user, one_user), (item, one_item) = hinted(batch)
        by_user = self.user_network(self.context.user[user], rows(out.user, user))
        by_item = self.item_network(self.context.item[item], rows(out.item, item))
        of_users = (self.teacher.user[user] - by_user).square().sum(1)
        of_items = (self.teacher.item[item] - by_item).square().sum(1)
        total: Tensor = (of_users * one_user).sum() + 0.5 * (of_items * one_item).sum()
        return total


class Hypernetwork(nn.Module):
    """Two layers from a context to a matrix, and that matrix times a student's embedding.

    Args:
        teacher_dim: width of contexts and estimates ``dT``.
        dim: width of the student's embeddings ``dS``.
        hidden: width of the hidden layer.
        bound: largest initial value of the last layer.
        generator: source of the initial values.
    """

    def __init__(
        self, teacher_dim: int, dim: int, hidden: int, bound: float, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        device, self.dim = generator.device, dim

        def draw(*shape: int, bound: float) -> nn.Parameter:
            value = torch.rand(*shape, generator=generator, device=device)
            return nn.Parameter((2 * value - 1) * bound)

        self.first = draw(teacher_dim, hidden, bound=teacher_dim**-0.5)
        self.first_bias = draw(hidden, bound=teacher_dim**-0.5)
        self.last = draw(hidden, teacher_dim * dim, bound=bound)
        self.last_bias = draw(teacher_dim * dim, bound=bound)

    def forward(self, context: Tensor, student: Tensor) -> Tensor:
        """Estimates, ``[n, dT], [n, dS] -> [n, dT]``."""
        hidden = (context @ self.first + self.first_bias).relu()
        matrix = (hidden @ self.last + self.last_bias).unflatten(1, (-1, self.dim))
        return torch.bmm(matrix, student.unsqueeze(2)).squeeze(2)


def enriched(teacher: Embeddings, seen: UserItems) -> Embeddings:
    """Every embedding averaged with the mean of its neighbours'; alone it stays as it is.

    Args:
        teacher: embeddings of ``U`` users and ``I`` items.
        seen: items of every user, of the same sizes.
    """
    if (seen.num_users, seen.num_items) != (teacher.num_users, teacher.num_items):
        raise ValueError(
            f"'seen' covers {seen.num_users} users and {seen.num_items} items, 'teacher' "
            f"{teacher.num_users} and {teacher.num_items}; both need those of the student"
        )

    def mix(own: Tensor, others: Tensor, lists: UserItems) -> Tensor:
        alone = (lists.degree == 0).unsqueeze(1)
        return torch.where(alone, own, 0.5 * (own + RowMean(lists)(others)))

    return Embeddings(
        mix(teacher.user, teacher.item, seen), mix(teacher.item, teacher.user, transposed(seen))
    )
