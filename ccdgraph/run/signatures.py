"""Signs that continual learning goes wrong, read off accuracy matrices and lists after a block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ccdgraph.metrics import AccuracyMatrix

FALLS = 3  # blocks in a row
LOSS, FORGOTTEN = 0.02, 0.1  # shares that each of them costs the newest and the older blocks
UNMOVED = 1e-3  # relative change of a teacher that has stopped learning
ALIKE = 1.5  # effectively different items, in lengths of a list, below which users share one list
PROXIES = ("stability", "plasticity")


class Signature(NamedTuple):
    """A sign of failure: ``kind`` of ``scorer`` after block ``block``, in words.

    Kinds are ``"falling"``, ``"collapsed"``, ``"blind"`` (a proxy) and ``"stagnating"``.
    """

    kind: str
    scorer: str
    block: int
    message: str


class Spread(NamedTuple):
    """How different the lists of the users are.

    Args:
        coverage: share of the catalogue that is in any list.
        effective: exponential of the entropy of the listed items: as many items, listed equally
            often, would be as diverse.
    """

    coverage: float
    effective: float


def spread(lists: Tensor, num_items: int) -> Spread:
    r"""How different the lists are.

    .. math:: \text{effective} = \exp\Big(-\sum_i p_i \log p_i\Big)

    Here :math:`p_i` is the share of item ``i`` among all places.

    Args:
        lists: item ids, ``[n, K]``; padding is below 0.
        num_items: size of the catalogue.

    >>> spread(torch.tensor([[0, 1], [0, 1]]), 8)
    Spread(coverage=0.25, effective=2.0)
    """
    count = torch.bincount(lists[lists >= 0], minlength=num_items).double()
    share = count[count > 0] / count.sum()
    entropy = -(share * share.log()).sum()
    return Spread(int((count > 0).sum()) / num_items, round(float(entropy.exp()), 6))


def falling(name: str, matrix: AccuracyMatrix, learnt: int) -> Signature | None:
    """Whether three blocks running cost accuracy: 2 % on the newest, or 10 % on all older ones.

    Accuracy on all blocks so far would not do: a stream that gets harder lowers it by itself.
    """
    blocks = range(learnt - FALLS + 1, learnt + 1)
    if blocks.start < 1:
        return None
    values = matrix.values
    newest = [float(values[k, k] / values[k - 1, k - 1]) for k in blocks]
    older = [float(values[k, :k].mean() / values[k - 1, :k].mean()) for k in blocks]
    for what, kept, loss in (
        ("the newest block", newest, LOSS),
        ("the older blocks", older, FORGOTTEN),
    ):
        if all(share < 1 - loss for share in kept):  # never true of NaN
            shown = ", ".join(f"{share:.0%}" for share in kept)
            message = f"accuracy of '{name}' on {what} falls block after block: to {shown}"
            return Signature("falling", name, learnt, message)
    return None


def collapsed(name: str, lists: Tensor, num_items: int, learnt: int) -> Signature | None:
    """Whether all users are shown much the same list.

    That is, the lists hold effectively less than one and a half times the items of one list, where
    more than twice as many were possible. A list of popular items counts as collapsed as well.

    Args:
        name: of the scorer.
        lists: unmasked lists of a sample of users, ``[n, K]``.
        num_items: size of the catalogue.
        learnt: the last block learnt.
    """
    length = lists.size(1)
    found, possible = spread(lists, num_items), min(num_items, lists.numel())
    if found.effective >= min(ALIKE * length, possible / 2):
        return None
    message = (
        f"'{name}' lists much the same {length} items for every user: effectively "
        f"{found.effective:.1f} different items, {found.coverage:.1%} of the catalogue"
    )
    return Signature("collapsed", name, learnt, message)


def blind(
    name: str,
    matrix: AccuracyMatrix,
    learnt: int,
    *,
    popularity: Sequence[float | None],
    chance: float,
) -> Signature | None:
    """Whether a proxy predicts no better than chance or than the same popular items for everyone.

    Args:
        name: of the proxy.
        matrix: recall of the proxy.
        learnt: the last block learnt.
        popularity: recall of the most popular items by tested block; ``None`` where not measured.
        chance: recall of random lists.
    """
    pairs = [
        (float(own), popular)
        for own, popular in zip(matrix.values[learnt].tolist(), popularity, strict=False)
        if popular is not None and not math.isnan(own)
    ]
    if not pairs:
        return None
    own, popular = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    for floor, what in ((chance, "random lists"), (popular, "the most popular items")):
        if own <= floor:
            message = f"proxy '{name}' predicts no better than {what}: {own:.4f} against "
            return Signature("blind", name, learnt, f"{message}{floor:.4f}")
    return None


def stagnating(
    name: str, teacher: AccuracyMatrix, student: AccuracyMatrix, learnt: int
) -> Signature | None:
    """Whether a teacher has stopped learning, or has nothing left to teach.

    It has stopped when its accuracy on every earlier block moved by less than 0.1 % since the
    block before; it has nothing to teach when its student was as good on the newest block twice
    running.
    """
    if learnt == 0:
        return None
    now, before = (teacher.values[k, :learnt] for k in (learnt, learnt - 1))
    if bool(((now - before).abs() < UNMOVED * before).all()):  # never true of NaN
        message = f"'{name}' stagnates: block {learnt} changed its accuracy on no earlier block"
        return Signature("stagnating", name, learnt, message)
    twice = slice(learnt - 1, learnt + 1)
    own, other = (matrix.values.diagonal()[twice] for matrix in (teacher, student))
    if bool((own <= other).all()):
        message = (
            f"'{name}' stagnates: on the newest block its student is as good, "
            f"{float(own[-1]):.4f} against {float(other[-1]):.4f}"
        )
        return Signature("stagnating", name, learnt, message)
    return None


def signatures(
    matrices: Mapping[str, AccuracyMatrix],
    learnt: int,
    *,
    served: str,
    popularity: Sequence[float | None],
    chance: float,
) -> list[Signature]:
    """All that the accuracy matrices of a run show after a block.

    Args:
        matrices: recall by scorer.
        learnt: the last block learnt.
        served: the scorer that serves.
        popularity: see :func:`blind`.
        chance: see :func:`blind`.
    """
    found: list[Signature | None] = []
    for name, matrix in matrices.items():
        if name in PROXIES:
            found.append(blind(name, matrix, learnt, popularity=popularity, chance=chance))
            continue
        found.append(falling(name, matrix, learnt))
        if name == "teacher" and served in matrices and served != name:
            found.append(stagnating(name, matrix, matrices[served], learnt))
    return [signature for signature in found if signature is not None]
