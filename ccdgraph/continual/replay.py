"""Proxies, and the replay of what a proxy still knows and the model has lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdgraph.data.interactions import UserItems
from ccdgraph.distill.alignment import aligned
from ccdgraph.nn.backbone import Embeddings
from ccdgraph.ranking import BUDGET, by_chunks, mask_seen, ranks_of, recommend_lists
from ccdgraph.sampling import Pairs


def moving_average(
    proxy: Embeddings, student: Embeddings, keep: float, *, align: bool = False
) -> Embeddings:
    r"""The proxy after one more distilled student.

    .. math:: \theta_P \leftarrow w\, \theta_P + (1 - w)\, \theta_S

    on the rows both have; rows new to the proxy are the student's. Served embeddings are averaged,
    so a proxy keeps what it knew whatever happens to the graph. Lee et al., KDD 2024,
    https://arxiv.org/abs/2405.19046.

    Args:
        proxy: average so far.
        student: embeddings of the distilled student, over at least as many entities.
        keep: share ``w`` of the old proxy, in [0, 1].
        align: turn the student into the proxy's coordinates first, which changes none of its
            scores. Students that were distilled afresh have axes of their own: without this, rows
            of one kind are averaged with, and scored against, rows of the other.

    >>> item = torch.zeros(1, 1)
    >>> old = Embeddings(torch.tensor([[1.0]]), item)
    >>> new = Embeddings(torch.tensor([[3.0], [3.0]]), item)
    >>> moving_average(old, new, 0.5).user.tolist()
    [[2.0], [3.0]]
    """
    if align:
        student = aligned(student, proxy)

    def mix(old: Tensor, new: Tensor) -> Tensor:
        common = torch.lerp(new[: len(old)], old, keep)
        return torch.cat([common, new[len(old) :]])

    return Embeddings(mix(proxy.user, student.user), mix(proxy.item, student.item))


@dataclass(frozen=True)
class Memory:
    """What one source of replay holds for each user: its best unseen items and their labels.

    Args:
        item: item ids ``[U, N]``, best first, ``-1`` pads.
        label: ``sigmoid`` of the source's scores over the temperature ``[U, N]``.
        draws: items drawn from it for each user.
        user: whose rows they are, ascending ``[U]``.
    """

    item: Tensor
    label: Tensor
    draws: int
    user: Tensor


def memorise(
    source: Embeddings,
    seen: UserItems,
    *,
    depth: int,
    draws: int,
    user: Tensor | None = None,
    temperature: float = 1.0,
    budget: int = BUDGET,
) -> Memory:
    """The ``depth`` best unseen items of users of ``source``, with soft labels.

    The source's scores are never edited; masking works on a copy.

    Args:
        source: whose knowledge it is.
        seen: items that are left out.
        depth: length of the lists.
        draws: items drawn from a list.
        user: users that are asked for, ascending; those unknown to ``source`` are left out. By
            default all that it knows.
        temperature: what scores are divided by in a label.
        budget: bytes a chunk of scores may take.
    """
    if user is None:
        user = torch.arange(source.num_users, device=source.user.device)
    user = user[user < source.num_users]
    depth = min(depth, source.num_items)
    seen = seen.within(source.num_users, source.num_items)
    score, item = recommend_lists(source, user, depth, seen, budget=budget)
    return Memory(item, (score / temperature).sigmoid().nan_to_num(0.0), draws, user)


class ReplayBatches:
    r"""Pairs that the sources rank high and the model in training ranks low.

    From each source's list of a user ``draws`` items are taken without replacement with

    .. math:: p(i) \propto \exp\big(\epsilon\, (r_{model}(u, i) - r_{source}(u, i))\big)

    where ranks count unseen items from 0 and the model's are those of the moment. Of a pair drawn
    from several sources the largest label counts. Lee et al., KDD 2024.

    Args:
        memories: one for each source.
        seen: items that no rank counts.
        sharpness: :math:`\epsilon`.
        redraw: epochs between two draws.
        batch_size: pairs a batch.
        adaptive: ``False`` draws uniformly from the lists (an ablation).
        generator: source of the draws, on the device of the memories.
        budget: bytes a chunk of scores may take.
    """

    def __init__(
        self,
        memories: Sequence[Memory],
        seen: UserItems,
        *,
        sharpness: float = 1e-4,
        redraw: int = 5,
        batch_size: int = 2048,
        adaptive: bool = True,
        generator: torch.Generator,
        budget: int = BUDGET,
    ) -> None:
        self.memories = [memory for memory in memories if memory.draws > 0]
        self.seen, self.sharpness, self.redraw = seen, sharpness, redraw
        self.batch_size, self.adaptive = batch_size, adaptive
        self.generator, self.budget = generator, budget
        self.pairs: Pairs | None = None

    def epoch(self, epoch: int, current: Callable[[], Embeddings]) -> Iterator[Pairs]:
        """Every drawn pair once, in a new order; all of them, the last short batch too."""
        if self.memories and (self.pairs is None or epoch % self.redraw == 0):
            self.pairs = self._draw(current())
        if self.pairs is None:
            return
        user, item, label = self.pairs.user, self.pairs.item, self.pairs.label
        order = torch.randperm(len(user), generator=self.generator, device=user.device)
        for part in order.split(self.batch_size):
            yield Pairs(user[part], item[part], label[part])

    def _draw(self, out: Embeddings) -> Pairs:
        columns = []
        for memory, rank in zip(self.memories, self._ranks(out), strict=True):
            place = torch.arange(memory.item.size(1), device=rank.device)
            gap = (rank - place) * self.sharpness if self.adaptive else torch.zeros_like(place)
            key = gap + _gumbel(memory.item.shape, rank.device, self.generator)
            key = key.masked_fill(memory.item < 0, float("-inf"))
            drawn = key.topk(min(memory.draws, key.size(1)), dim=1)
            user = memory.user.unsqueeze(1).expand_as(drawn.indices)
            real = drawn.values > float("-inf")
            item, label = (x.gather(1, drawn.indices)[real] for x in (memory.item, memory.label))
            columns.append((user[real], item, label))
        user, item, label = (torch.cat(parts) for parts in zip(*columns, strict=True))
        pair, place = torch.unique(user * out.num_items + item, return_inverse=True)
        largest = label.new_zeros(len(pair)).scatter_reduce_(0, place, label, reduce="amax")
        return Pairs(pair // out.num_items, pair % out.num_items, largest)

    def _ranks(self, out: Embeddings) -> list[Tensor]:
        """Rank of every memory's items in the model's own list of unseen items, ``[U, N]`` each.

        All memories are of the same users, as far as their sources know them.
        """
        if not self.adaptive:
            return [memory.item for memory in self.memories]
        longest = max((memory.user for memory in self.memories), key=len)

        def count(place: Tensor) -> list[Tensor]:
            scores = mask_seen(out.scores(longest[place]), longest[place], self.seen)
            listed = [m.item[place[place < len(m.item)]].clamp(min=0) for m in self.memories]
            return [ranks_of(scores[: len(item)], item) for item in listed]

        everyone = torch.arange(len(longest), device=longest.device)
        ranks = by_chunks(count, everyone, out.num_items, budget=self.budget, copies=6)
        return [torch.cat(parts) for parts in zip(*ranks, strict=True)]


def _gumbel(shape: torch.Size, device: torch.device, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise: the ``m`` largest of ``log p`` + noise are a draw without return."""
    noise = torch.empty(shape, device=device).exponential_(generator=generator)
    # An exponential draw can be exactly 0, whose logarithm would win every draw.
    return -noise.clamp_(min=torch.finfo(noise.dtype).tiny).log()
