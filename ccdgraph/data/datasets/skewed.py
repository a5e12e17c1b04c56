"""Interactions of any size with the skew of real logs: what scale is measured on."""

from __future__ import annotations

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.data.interactions import Interactions

_START = 1_704_067_200  # 2024-01-01
_SPAN = 365 * 86_400
_LATEST = 0.98  # the last entities arrive here, not at the very end


def skewed_interactions(
    num_users: int,
    num_items: int,
    num_interactions: int,
    *,
    num_communities: int = 100,
    affinity: float = 0.7,
    sigma: float = 1.2,
    exponent: float = 0.8,
    early: float = 0.6,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Interactions:
    r"""Seeded interactions in time order: log-normal users, Zipf items, planted communities.

    The activity of a user is :math:`e^{\sigma z}`, :math:`z` standard normal. An interaction of a
    user of community :math:`c` falls, with probability ``affinity``, to an item of :math:`c`
    (items :math:`c, c + C, c + 2C, \dots`), otherwise to one of a random community; there the item
    of rank :math:`r` has weight :math:`r^{-a}`. A share ``early`` of all entities is there from the
    start and the others arrive evenly, items in the order of their rank. A pair may repeat, as it
    does in a log. Time and memory are linear in the interactions, and every step is one tensor
    operation on ``device``.

    Args:
        num_users: users; one that never acts has no row. The community of user ``u`` is ``u % C``.
        num_items: items; at least one for each community.
        num_interactions: rows, exactly.
        num_communities: ``C``.
        affinity: probability of an item of one's own community.
        sigma: deviation of the logarithm of activity.
        exponent: ``a``, positive and not 1.
        early: share of users and items that are there from the start.
        seed: seed of all draws.
        device: where to draw; other devices give other draws.

    Raises:
        ValueError: an option is out of range.

    >>> rows = skewed_interactions(1000, 500, 5000, num_communities=10)
    >>> len(rows), bool((rows.time.diff() >= 0).all())
    (5000, True)
    """
    if num_users < 1 or num_interactions < 1 or not 1 <= num_communities <= num_items:
        raise ValueError(
            f"'num_users' is {num_users}, 'num_items' {num_items}, 'num_interactions' "
            f"{num_interactions} and 'num_communities' {num_communities}; there must be a user, a "
            "row, and an item for every community"
        )
    if exponent <= 0 or exponent == 1 or not (0 <= affinity <= 1 and 0 < early <= 1):
        raise ValueError(
            f"'exponent' is {exponent}, 'affinity' {affinity} and 'early' {early}; the first is "
            "positive and not 1, the others are shares"
        )
    generator = rng(seed, "skewed", device=device)
    user, time = _visits(num_users, num_interactions, sigma, early, generator)
    follows = _uniform(num_interactions, generator) < affinity
    size = (num_interactions,)
    random = torch.randint(num_communities, size, generator=generator, device=user.device)
    group = torch.where(follows, user % num_communities, random)
    there = early + (1 - early) * (time / _LATEST).clamp_(max=1)
    place = _zipf((num_items - group - 1) // num_communities + 1, there, exponent, generator)
    item = place.mul_(num_communities).add_(group)
    return Interactions(user, item, _START + (time * _SPAN).long())


def _visits(
    num_users: int, num: int, sigma: float, early: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Who acts when: users ``[num]``, and ascending times in [0, 1) ``[num]``."""
    device = generator.device
    weight = torch.randn(num_users, generator=generator, device=device).mul_(sigma).exp_()
    birth = (
        (_uniform(num_users, generator) - early).clamp_(min=0) / max(1 - early, 1e-9)
    ) * _LATEST
    total = (weight * (1 - birth)).double().cumsum(0)
    draw = _uniform(num, generator).double() * total[-1]
    user = torch.searchsorted(total, draw, right=True).clamp_(max=num_users - 1)
    born = birth[user]
    time, order = (born + (1 - born) * _uniform(num, generator)).sort()
    return user[order], time.clamp_(max=1 - 2**-24)


def _zipf(size: Tensor, there: Tensor, exponent: float, generator: torch.Generator) -> Tensor:
    """Places below the part of ``size`` that is there, by inverse cumulative weight, int64."""
    last = (size * there).ceil_().clamp_(min=1)
    power = 1 - exponent
    draw = _uniform(len(size), generator)
    place = (((last + 1) ** power - 1) * draw + 1) ** (1 / power) - 1
    return torch.minimum(place.floor_(), last - 1).long()


def _uniform(num: int, generator: torch.Generator) -> Tensor:
    return torch.rand(num, generator=generator, device=generator.device)
