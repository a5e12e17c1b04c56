"""ADER: exemplars picked by herding, replayed with the old model's distribution over items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.continual.incremental import Incremental, IncrementalConfig
from ccdgraph.continual.reservoir import held
from ccdgraph.continual.scene import Scene
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.sparse import RowMean
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.nn.backbone import rows
from ccdgraph.sampling import Entities
from ccdgraph.train import Part, Term, embed


@dataclass(frozen=True)
class ADERConfig(IncrementalConfig):
    """Settings of :class:`ADER`.

    Args:
        memory: exemplars ``N``.
        weight: weight of the distillation before it adapts to the block.
    """

    memory: int = 10_000
    weight: float = 0.8

    def __post_init__(self) -> None:
        if self.memory < 1 or self.weight < 0:
            raise ValueError(
                f"'memory' is {self.memory} and 'weight' {self.weight}; "
                "ADER keeps at least 1 exemplar and weighs it at 0 or above"
            )


class ADER(Incremental[ADERConfig]):
    r"""Fine-tuning with adaptively weighted distillation on exemplars.

    .. math:: L = L_{BPR}(D_t) + \lambda_t \sum_{(u, i) \in E} H\big(
        \mathrm{softmax}(s_u^{old}),\, \mathrm{softmax}(s_u[I_{t-1}]) \big), \qquad
        \lambda_t = \lambda \sqrt{\frac{|I_{t-1}|}{|I_t|} \cdot \frac{|E|}{|D_t|}}

    Both losses are sums over batches of as many rows, as both are means in the authors' code. After
    a block the exemplars are picked anew from the block and the exemplars so far
    (:func:`exemplars`). Their old scores are those of the model that the block starts from, which
    is the one that picked them, so that pairs alone are kept and no rows of scores. Where a block
    starts the two distributions are the same and the gradient of the second loss is 0: it acts from
    the second step of a block on, and a block of one step is fine-tuning.

    Mi et al., *ADER: Adaptively Distilled Exemplar Replay*, RecSys 2020,
    https://arxiv.org/abs/2007.12000. Differs from the paper: an exemplar is a pair and its user's
    embedding stands for the session's; the block has the backbone's own loss instead of a
    cross-entropy over all items.
    """

    def __init__(self, config: ADERConfig = ADERConfig(), *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)

    def parts(self, scene: Scene, previous: Backbone) -> Sequence[Part]:
        """The distillation on the exemplars."""
        before = scene.known.before
        assert before is not None, "the base block has no past"
        user, num_items = self.memory["user"], previous.num_items
        weight = self.config.weight * math.sqrt(
            num_items / scene.block.num_items * len(user) / max(len(scene.block.train), 1)
        )
        if weight == 0:
            return ()
        batches = RowBatches(user, self.config.batch_size, scene.rng("exemplars"))
        return [Part(OldDistribution(embed(previous, before)), batches, weight)]

    def remember(self, scene: Scene, model: Backbone) -> None:
        """Pick the exemplars anew."""
        train = scene.block.train
        pool = Interactions(train.user, train.item)
        if self.memory:
            pool = Interactions.cat([pool, held(self.memory)])
        features = embed(model, scene.known.graph).user[pool.user]
        kept = pool[exemplars(features, pool.item, self.config.memory)]
        self.memory = {"user": kept.user, "item": kept.item}


class OldDistribution(Term):
    r"""Cross-entropy of the scores of old items against the old model's distribution.

    .. math:: \ell = -\sum_{u \in B} \sum_{i < |I_{t-1}|} \mathrm{softmax}(s_u^{old})_i
        \log \mathrm{softmax}(s_u)_i

    A sum over the batch, both softmaxes over the items of the old model.

    Args:
        old: embeddings of the model before the block.
    """

    def __init__(self, old: Embeddings) -> None:
        super().__init__()
        self.old = old.detach()

    def forward(self, out: Embeddings, batch: Entities) -> Tensor:
        """Sum over the users of the batch, all of whom the old model knows."""
        target = self.old.scores(batch.index).softmax(1)
        scores = rows(out.user, batch.index) @ out.item[: self.old.num_items].T
        return -(target * scores.log_softmax(1)).sum()


class RowBatches:
    """Users of exemplars in random order; one of several exemplars comes several times.

    Args:
        user: user of every exemplar ``[n]``.
        batch_size: exemplars a batch.
        generator: source of the order, on the device of ``user``.
    """

    def __init__(self, user: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self.user, self.batch_size, self.generator = user, batch_size, generator

    def epoch(
        self, epoch: int, current: Callable[[], Embeddings] | None = None
    ) -> Iterator[Entities]:
        """Every exemplar once, in a new order."""
        order = torch.randperm(len(self.user), generator=self.generator, device=self.user.device)
        for part in self.user[order].split(self.batch_size):
            yield Entities(part)


def exemplars(feature: Tensor, item: Tensor, size: int) -> Tensor:
    r"""Places of at most ``size`` exemplars, ascending: each item's share picked by herding.

    An item gets a share of ``size`` in proportion to its rows (:func:`shares`). Its exemplars are
    picked one after another so that the mean of their features stays closest to that of all:

    .. math:: p_k = \arg\min_{p} \big\lVert \mu - \tfrac1k \big(\phi_p + \textstyle\sum_{j < k}
        \phi_{p_j}\big) \big\rVert

    with features :math:`\phi` of unit length; the first row wins a tie. Welling, *Herding dynamical
    weights to learn*, ICML 2009. All items pick their next one at once.

    Args:
        feature: feature of every row ``[n, D]``.
        item: item of every row ``[n]``.
        size: exemplars of all items together.
    """
    kind, group = torch.unique(item, return_inverse=True)
    unit = torch.nn.functional.normalize(feature, dim=1)
    count = torch.bincount(group)
    wanted = shares(count, size)
    order = torch.argsort(group, stable=True)
    members = UserItems(torch.cat([count.new_zeros(1), count.cumsum(0)]), order, len(item))
    mean = RowMean(members)(unit)
    total, picked = torch.zeros_like(mean), torch.zeros_like(group, dtype=torch.bool)
    place = torch.arange(len(item), device=item.device)
    for k in range(int(wanted.max()) if len(kind) else 0):
        open_ = place[(wanted[group] > k) & ~picked]
        own = group[open_]
        distance = (mean[own] - (total[own] + unit[open_]) / (k + 1)).square().sum(1)
        least = distance.new_full((len(kind),), float("inf"))
        least.scatter_reduce_(0, own, distance, "amin")
        first = place.new_full((len(kind),), len(item))
        best = distance == least[own]
        first.scatter_reduce_(0, own[best], open_[best], "amin")
        chosen = first[first < len(item)]
        picked[chosen] = True
        total[group[chosen]] += unit[chosen]
    return place[picked]


def shares(count: Tensor, size: int) -> Tensor:
    """Whole numbers in proportion to ``count`` that sum to ``size``, none above its count.

    The largest remainders are rounded up; ties go to the earlier one.

    >>> shares(torch.tensor([5, 1, 2]), 4).tolist()  # 2.5, 0.5, 1
    [3, 0, 1]
    """
    size = min(size, int(count.sum()))
    exact = count.double() * size / max(int(count.sum()), 1)
    whole = exact.floor().long()
    order = (exact - whole).argsort(descending=True, stable=True)
    whole[order[: size - int(whole.sum())]] += 1
    return whole
