"""What a block says of drift before it is learnt: test first, then train."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.stream import Block
from ccdgraph.distill.diagnostics import overlap
from ccdgraph.ranking import Scorer, mask_seen, recommend_lists, user_chunks
from ccdgraph.sampling import draw_negatives


def known_rows(rows: Interactions, num_users: int, num_items: int) -> Interactions:
    """The rows of users and items that were known before, in their order."""
    return rows[(rows.user < num_users) & (rows.item < num_items)]


def misses(scorer: Scorer, rows: Interactions, seen: UserItems, *, k: int = 20) -> Tensor:
    """1 for every row that is not among the ``k`` best unseen items of its user, else 0, ``[n]``.

    Args:
        scorer: as it is before it learns the rows.
        rows: of known users and items, in the order in which they arrived.
        seen: what the users had before.
        k: length of the lists.
    """
    user, place = torch.unique(rows.user, return_inverse=True)
    lists = recommend_lists(scorer, user, min(k, scorer.num_items), seen)[1]
    return (lists[place] != rows.item.unsqueeze(1)).all(1).float()


def losses_before(
    scorer: Scorer, rows: Interactions, seen: UserItems, *, generator: torch.Generator
) -> Tensor:
    r"""BPR loss of every row against one drawn item, before it is learnt, ``[n]``.

    .. math:: -\log \sigma(s_{ui} - s_{uj})

    Args:
        scorer: see :func:`misses`.
        rows: see :func:`misses`.
        seen: never drawn.
        generator: source of the draws, on the device of ``rows``.
    """
    drawn = draw_negatives(rows.user, seen.num_items, 1, seen.keys(), generator=generator)
    user, place = torch.unique(rows.user, return_inverse=True)
    gaps, first = torch.empty(len(rows), device=place.device), 0
    for chunk in user.split(max(1, 2**22 // max(1, scorer.num_items))):
        here = (place >= first) & (place < first + len(chunk))
        row, scores = place[here] - first, scorer.scores(chunk)
        gaps[here] = scores[row, rows.item[here]] - scores[row, drawn[here, 0]]
        first += len(chunk)
    return -functional.logsigmoid(gaps)


def ranks(scorer: Scorer, rows: Interactions, seen: UserItems) -> Tensor:
    r"""Share of its user's unseen items that score above a row's item, in [0, 1], ``[n]``.

    .. math:: \frac{|\{ j \notin S_u : s_{uj} > s_{ui} \}|}{|\{ j \notin S_u \}|}

    with :math:`S_u` what the user had before. Says how far off a miss is, and compares with all
    items where a loss draws one, so that fewer rows show that some users turn.

    Args:
        scorer: see :func:`misses`.
        rows: see :func:`misses`; a seen item counts as the last.
        seen: see :func:`misses`.
    """
    found, unseen = [torch.empty(0, device=rows.user.device)], seen.num_items - seen.degree
    for place in user_chunks(torch.arange(len(rows), device=rows.user.device), scorer.num_items):
        user, item = rows.user[place], rows.item[place]
        scores = mask_seen(scorer.scores(user).clone(), user, seen)  # a scorer may keep its own
        above = (scores > scores.gather(1, item.unsqueeze(1))).sum(1)
        found.append(above / unseen[user].clamp(min=1))
    return torch.cat(found)


def js_distance(first: Tensor, second: Tensor) -> float:
    r"""Jensen-Shannon distance of two histograms, in [0, 1].

    .. math:: \sqrt{\tfrac12 \mathrm{KL}(p \,\|\, m) + \tfrac12 \mathrm{KL}(q \,\|\, m)}, \qquad
        m = \tfrac12 (p + q)

    with logarithms to the base 2. Endres and Schindelin, *A New Metric for Probability
    Distributions*, IEEE Transactions on Information Theory 2003.

    Args:
        first: counts ``[n]``, not all 0.
        second: counts ``[n]``, not all 0.

    >>> js_distance(torch.tensor([1, 0]), torch.tensor([0, 3]))
    1.0
    """
    if not (first.sum() > 0 and second.sum() > 0):
        raise ValueError("a histogram is empty; there is nothing to compare")
    p, q = (counts.double() / counts.sum() for counts in (first, second))
    m = (p + q) / 2
    divergence = sum(torch.xlogy(x, x / m.clamp(min=1e-300)).sum() / 2 for x in (p, q))
    return float((torch.as_tensor(divergence) / torch.log(m.new_tensor(2.0))).clamp(0, 1).sqrt())


def popularity_shift(rows: Interactions, before: Interactions, num_items: int) -> float:
    """Jensen-Shannon distance of item popularity in two blocks, of the items known before both.

    Items that came since are left out: they take a share from everyone without any drift.
    """
    counts = [
        torch.bincount(part.item[part.item < num_items], minlength=num_items)
        for part in (rows, before)
    ]
    return js_distance(*counts)


def disagreement(student: Scorer, teacher: Scorer, seen: UserItems, user: Tensor, k: int) -> float:
    """Mean share of the teacher's ``k`` best unseen items that the student does not list."""
    lists = [
        recommend_lists(scorer, user, min(k, scorer.num_items), seen)[1]
        for scorer in (student, teacher)
    ]
    return 1 - float(overlap(*lists).nanmean())


def new_share(block: Block, num_users: int, num_items: int) -> float:
    """Share of a block's training rows with a new user or a new item."""
    rows = block.train
    return 1 - len(known_rows(rows, num_users, num_items)) / len(rows)
