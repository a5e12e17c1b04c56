"""LWC-KD: layer-wise contrastive distillation from a model's own past."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.piw import PIW
from ccdgraph.nn.backbone import Embeddings, rows
from ccdgraph.sampling import Triplets
from ccdgraph.train import Term

# Bytes of scores at once: a block that stays in a core's cache, or one that keeps a device busy.
_BUDGET = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}


class LWCKD(Term):
    r"""Keep each entity's old embedding close to its old neighbours, at every layer.

    With a frozen anchor :math:`a` of the old model, current embeddings :math:`h` and the old
    neighbours :math:`M_a`,

    .. math:: C(a) = \log \sum_{c} e^{\langle a, h_c \rangle / T}
        - \frac{1}{|M_a|} \sum_{c \in M_a} \langle a, h_c \rangle / T

    summed over user-item, item-user, user-user and item-item neighbours, meaned over the anchors of
    the batch and over the layers. The two terms with user anchors are weighted by :class:`PIW`.

    Wang et al., *Graph Structure Aware Contrastive Knowledge Distillation*, CIKM 2021. Differs from
    the code released with CCD: all layers count, the deepest too; anchors are indexed by entity;
    the personal weights act. On a CUDA device the products of anchors and entities run on tensor
    cores (TF32: factors of ten bits, sums of twenty-three), whatever torch's setting is.

    Args:
        old: embeddings of the model before the block, with ``layers``.
        neighbours: old neighbours of every kind.
        weight: personal weights, or ``None`` to count every user alike.
        temperature: ``T``.
        num_drawn: users and items, of each so many, drawn in every step to stand for all in the
            sums over :math:`c`, weighted by one over their chance; 0 takes all. A sum is then
            unbiased, its logarithm slightly low.
        generator: source of these draws, on the device of ``old``.
    """

    def __init__(
        self,
        old: Embeddings,
        neighbours: Neighbours,
        *,
        weight: PIW | None = None,
        temperature: float = 5.0,
        num_drawn: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_drawn, self.generator = num_drawn, generator
        self.old, self.weight, self.temperature = old.detach(), weight, temperature
        self.num_users, self.num_items = old.num_users, old.num_items
        self.neighbours = neighbours

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Mean over the anchors of the batch that the old graph knows."""
        known = torch.cat([batch.user < self.num_users, batch.positive < self.num_items])
        user = batch.user.clamp(max=self.num_users - 1)
        item = batch.positive.clamp(max=self.num_items - 1)
        share = self._shares(user, item, known)
        if self.weight is not None:
            weight = self.weight(out, user, known[: len(user)])
            share = torch.cat([share[: len(user)] * weight.unsqueeze(1), share[len(user) :]])
        anchor = torch.cat([user, item + self.num_users])
        places = self.neighbours.places(anchor)
        layers = [self._old_entities(layer, out.num_users) for layer in out.layers]
        means = self.neighbours.means(torch.cat(layers, dim=1)).split(layers[0].size(1), dim=1)
        drawn = self._draw() if self.num_drawn else None
        num_users = self.num_drawn or self.num_users
        loss = out.user.new_zeros(())
        for old, new, mean in zip(self.old.layers, layers, means, strict=True):
            own = old[anchor] / self.temperature
            positive = (rows(mean, places) * own.unsqueeze(1)).sum(-1)
            among = new if drawn is None else rows(new, drawn)
            sums = _LogPartitions.apply(own, among, share, num_users)  # type: ignore[no-untyped-call]
            loss = loss + sums - (share * positive).sum()
        if drawn is not None:
            # Every layer's sums are too small by the share that was drawn of each kind.
            every = share.new_tensor([self.num_users, self.num_items])
            loss = loss + len(layers) * (share * (every / self.num_drawn).log()).sum()
        return loss / len(layers)

    def _draw(self) -> Tensor:
        """Users and items, with repetition, that stand for all in a step."""
        size, device = (self.num_drawn,), self.old.user.device
        user, item = (
            torch.randint(num, size, generator=self.generator, device=device)
            for num in (self.num_users, self.num_items)
        )
        return torch.cat([user, item + self.num_users])

    def _shares(self, user: Tensor, item: Tensor, known: Tensor) -> Tensor:
        """Share of every anchor in the means of its two kinds: with users and with items."""
        near = self.neighbours
        with_user = torch.cat(
            [near.user_user.lists.degree[user], near.item_user.lists.degree[item]]
        )
        with_item = torch.cat(
            [near.user_item.lists.degree[user], near.item_item.lists.degree[item]]
        )
        counts = (torch.stack([with_user, with_item], 1) > 0) & known.unsqueeze(1)
        own = counts.to(self.old.user.dtype)
        return torch.cat([part / part.sum(0).clamp(min=1) for part in own.split(len(user))])

    def _old_entities(self, layer: Tensor, num_users: int) -> Tensor:
        """Rows of the entities that the old model has, users first."""
        return torch.cat([layer[: self.num_users], layer[num_users : num_users + self.num_items]])


class _LogPartitions(torch.autograd.Function):
    """Weighted sum of the log-sum-exp of each anchor's scores over users and over items.

    Gradient flows to ``entities`` ``[N, D]`` and ``weight`` ``[A, 2]``. Both are found on the way
    forward, while a block of scores is at hand: it is neither kept nor made again. Blocks are
    chunks of anchors that stay within ``_BUDGET`` bytes.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, entities: Tensor, weight: Tensor, num_users: int
    ) -> Tensor:
        total, flow = torch.empty_like(weight), torch.zeros_like(entities)
        sizes, size = [num_users, len(entities) - num_users], _chunk(anchor, entities)
        parts = zip(*(tensor.split(size) for tensor in (anchor, weight, total)), strict=True)
        with _tensor_cores() if anchor.is_cuda else contextlib.nullcontext():
            for own, own_weight, own_total in parts:
                for kind, (member, target) in enumerate(
                    zip(entities.split(sizes), flow.split(sizes), strict=True)
                ):
                    scores = own @ member.T
                    log_share = scores.log_softmax(1)
                    own_total[:, kind] = scores[:, 0] - log_share[:, 0]
                    target.addmm_(log_share.exp_().T, own * own_weight[:, kind : kind + 1])
        ctx.save_for_backward(total, flow)
        return (weight * total).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None]:
        total, flow = ctx.saved_tensors
        return None, grad * flow, grad * total, None


@contextlib.contextmanager
def _tensor_cores() -> Iterator[None]:
    """TF32 for products of 32 bits on a CUDA device; the setting of torch is put back."""
    products = torch.backends.cuda.matmul
    # Before torch 2.9 there is the switch alone; the two must not be mixed.
    named = hasattr(products, "fp32_precision")
    name, value = ("fp32_precision", "tf32") if named else ("allow_tf32", True)
    before = getattr(products, name)
    setattr(products, name, value)
    try:
        yield
    finally:
        setattr(products, name, before)


def _chunk(anchor: Tensor, entities: Tensor) -> int:
    budget = _BUDGET["cuda" if anchor.is_cuda else "cpu"]
    return max(1, budget // (anchor.element_size() * max(1, len(entities))))
