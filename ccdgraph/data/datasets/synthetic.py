"""The embedded stream: planted communities, skewed popularity, growth and drift."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.data.events import Events
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.split import split_stream
from ccdgraph.data.stream import Stream
from ccdgraph.data.vocabulary import Vocabulary

_START = 1_704_067_200  # 2024-01-01
_SPAN = 365 * 86_400
_OVERSAMPLING = 2.0  # repeated pairs are dropped, so more are drawn


def synthetic_stream(
    num_users: int = 1500,
    num_items: int = 1000,
    num_interactions: int = 40_000,
    *,
    num_blocks: int = 5,
    num_communities: int = 10,
    affinity: float = 0.8,
    drift: float = 0.15,
    base: float = 0.5,
    protocol: Literal["within", "next"] = "within",
    seed: int = 0,
) -> Stream:
    """A seeded stream with known structure, split by ``split_stream``.

    Users and item groups form communities. An event of a user of community ``c`` in block ``k``
    picks, with probability ``affinity``, the group ``c + floor(x)`` or the next one (with
    probability ``x - floor(x)``), where ``x = drift * k``; otherwise a random group. Inside a group
    the item of popularity rank ``r`` has weight ``1 / r``; activity of users is skewed alike.
    Six in ten users and eight in ten items are there from the start, the others arrive evenly.
    No (user, item) pair repeats. External ids show the truth: ``"c3u0012"``, ``"c3i0007"``.

    Args:
        num_users: users; one that never acts is left out.
        num_items: items; one that is never chosen is left out.
        num_interactions: rows before the split; fewer if too few distinct pairs are drawn.
        num_blocks: incremental blocks after the base.
        num_communities: number of communities and of item groups.
        affinity: probability of an item of the preferred group.
        drift: how far preferences move per block; 1 is one whole group.
        base: share of the rows in block 0.
        protocol: as in ``split_stream``.
        seed: seed of the events and of the split.

    Raises:
        ValueError: an option is out of range.

    >>> stream = synthetic_stream(200, 100, 2000, num_blocks=2)
    >>> len(stream), stream.users[0][0], stream[0].num_users < stream[2].num_users
    (3, 'c', True)
    """
    _check(num_users, num_items, num_interactions, num_communities, affinity, drift)
    generator = rng(seed, "synthetic")
    user_community = torch.randint(num_communities, (num_users,), generator=generator)
    item_group = torch.arange(num_items) % num_communities
    user, time = _visits(num_users, int(_OVERSAMPLING * num_interactions), generator)
    place = torch.arange(len(time)) / len(time)
    block = ((place - base) / (1 - base) * num_blocks).floor().add(1).clamp(min=0)
    group = _preferred(user_community[user], block * drift, num_communities, generator)
    random = torch.randint(num_communities, (len(user),), generator=generator)
    follows = torch.rand(len(user), generator=generator) < affinity
    item = _choose(torch.where(follows, group, random), time, item_group, generator)
    seconds = _START + (time * _SPAN).long()
    kept = _distinct(user, item, num_interactions, generator)
    events = Events.from_rows(
        Interactions(user, item, seconds)[kept],
        _names(user_community, "u"),
        _names(item_group, "i"),
        name="synthetic",
        time_unit="s",
    )
    return split_stream(events, base=base, num_blocks=num_blocks, protocol=protocol, seed=seed)


def _visits(num_users: int, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Who acts when: users ``[num]`` and times in [0, 1) ascending, float64 ``[num]``."""
    birth = _births(num_users, 0.6, generator)
    rank = torch.randperm(num_users, generator=generator)
    weight = (rank + 0.05 * num_users).double().reciprocal() * (1 - birth)
    user = torch.multinomial(weight, max(num - num_users, 0), replacement=True, generator=generator)
    user = torch.cat([torch.arange(num_users), user])
    delay = torch.rand(len(user), generator=generator, dtype=torch.float64)
    delay[:num_users] = 0
    time, order = (birth[user] + (1 - birth[user]) * delay).sort(stable=True)
    return user[order], time


def _births(num: int, early: float, generator: torch.Generator) -> Tensor:
    birth = torch.rand(num, generator=generator, dtype=torch.float64)
    return (birth - early).clamp(min=0) / (1 - early) * 0.98


def _preferred(
    community: Tensor, shift: Tensor, num_communities: int, generator: torch.Generator
) -> Tensor:
    step = shift.floor()
    ahead = torch.rand(len(shift), generator=generator) < shift - step
    return (community + step.long() + ahead) % num_communities


def _choose(group: Tensor, time: Tensor, item_group: Tensor, generator: torch.Generator) -> Tensor:
    """One item of ``group`` born by ``time`` for every event, by inverse cumulative weight."""
    num_items, num_groups = len(item_group), int(item_group.max()) + 1
    birth = _births(num_items, 0.8, generator)
    birth[:num_groups] = 0
    rank = torch.randperm(num_items, generator=generator) // num_groups + 1
    key, order = (item_group + birth).sort(stable=True)
    total = torch.cat([key.new_zeros(1), rank[order].double().reciprocal().cumsum(0)])
    low = total[torch.searchsorted(key, group.double())]
    high = total[torch.searchsorted(key, group + time, right=True)]
    draw = torch.rand(len(group), generator=generator, dtype=torch.float64)
    place = torch.searchsorted(total, low + draw * (high - low), right=True) - 1
    return order[place.clamp_(max=num_items - 1)]


def _distinct(user: Tensor, item: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Places of the first row of every pair, a random ``limit`` of them, ascending."""
    _, inverse = torch.unique(user * (int(item.max()) + 1) + item, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(user))
    first.scatter_reduce_(0, inverse, torch.arange(len(user)), "amin")
    return first[torch.randperm(len(first), generator=generator)[:limit]].sort().values


def _names(community: Tensor, kind: str) -> Vocabulary:
    return Vocabulary([f"c{c}{kind}{i:04d}" for i, c in enumerate(community.tolist())])


def _check(
    num_users: int,
    num_items: int,
    num_interactions: int,
    num_communities: int,
    affinity: float,
    drift: float,
) -> None:
    if num_communities < 1 or num_items < num_communities or num_users < 1:
        raise ValueError(
            f"'num_items' is {num_items}, 'num_users' {num_users} and 'num_communities' "
            f"{num_communities}; every community needs an item and there must be a user"
        )
    if num_interactions < 1:
        raise ValueError(f"'num_interactions' is {num_interactions}; it must be at least 1")
    if not 0 <= affinity <= 1 or drift < 0:
        raise ValueError(
            f"'affinity' is {affinity} and 'drift' {drift}; "
            "affinity is a probability and drift at least 0"
        )
