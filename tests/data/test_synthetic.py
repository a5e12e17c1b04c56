from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ccdgraph.data import Interactions, Stream, UserItems, describe, fingerprint, synthetic_stream


@pytest.fixture(scope="module")
def stream() -> Stream:
    return synthetic_stream()


def rows(stream: Stream, index: int) -> Interactions:
    block = stream[index]
    return Interactions.cat([block.train, block.valid, block.test])


def gap(stream: Stream, index: int, num_communities: int = 10) -> Tensor:
    """How far each row's item group lies ahead of its user's community."""
    part = rows(stream, index)
    user = torch.tensor([int(name.split("u")[0][1:]) for name in map(str, stream.users.ids)])
    item = torch.tensor([int(name.split("i")[0][1:]) for name in map(str, stream.items.ids)])
    return (item[part.item] - user[part.user]) % num_communities


def test_size_is_as_asked_and_pairs_are_distinct(stream: Stream) -> None:
    total = sum(len(rows(stream, k)) for k in range(len(stream)))
    assert len(stream) == 6 and 39_900 < total <= 40_000
    assert 1_400 < stream[-1].num_users == len(stream.users) <= 1_500
    assert 950 < stream[-1].num_items == len(stream.items) <= 1_000
    everything = Interactions.cat(rows(stream, k) for k in range(len(stream)))
    pairs = UserItems.from_interactions([everything], len(stream.users), len(stream.items))
    assert len(pairs.item) == total


def test_every_block_brings_new_users_and_items(stream: Stream) -> None:
    for summary in describe(stream)[1:]:
        assert summary.new_users >= 20 and summary.new_items >= 5


def test_popularity_and_activity_are_skewed(stream: Stream) -> None:
    part = rows(stream, 0)
    for ids, least in ((part.item, 0.3), (part.user, 0.2)):
        count = torch.bincount(ids).sort(descending=True).values
        assert count[: len(count) // 10].sum() / count.sum() > least


def test_communities_are_planted_and_drift(stream: Stream) -> None:
    """Affinity .8 and ten groups leave .84 in two groups; .15 a block moves to the second."""
    moved = []
    for index in range(len(stream)):
        distance = gap(stream, index)
        home, ahead = (float((distance == k).float().mean()) for k in (0, 1))
        assert 0.65 < home + ahead < 0.9
        moved.append((ahead - 0.02) / (home + ahead - 0.04))
    assert moved[0] < 0.05 and 0.7 < moved[-1] < 0.95
    assert all(0.04 < later - earlier < 0.3 for earlier, later in pairwise(moved))


def test_without_affinity_there_are_no_communities() -> None:
    flat = gap(synthetic_stream(affinity=0.0, num_interactions=8_000), 0)
    assert (torch.bincount(flat) / len(flat) - 0.1).abs().max() < 0.03


def test_item_similarity_beats_popularity_by_far(stream: Stream) -> None:
    block = stream[0]
    train = torch.zeros(block.num_users, block.num_items)
    train[block.train.user, block.train.item] = 1
    test = torch.zeros_like(train)
    test[block.test.user, block.test.item] = 1
    count = train.sum(0).clamp(min=1)
    similar = train.T @ train / (count[:, None] * count).sqrt()

    def recall(scores: Tensor) -> float:
        top = scores.masked_fill(train > 0, -torch.inf).topk(20).indices
        users = test.sum(1) > 0
        return float((test.gather(1, top).sum(1)[users] / test.sum(1)[users]).mean())

    assert recall(train @ similar) > 1.8 * recall(count.expand_as(train))


@pytest.mark.parametrize("protocol", ["within", "next"])
def test_same_seed_is_bitwise_equal(protocol: str) -> None:
    first, again, other = (
        synthetic_stream(200, 100, 2_000, protocol=protocol, seed=seed)  # type: ignore[arg-type]
        for seed in (3, 3, 4)
    )
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    assert first.users == again.users and first[0].train.time is not None
    assert torch.equal(first[0].train.time, again[0].train.time)  # type: ignore[arg-type]
    assert first.protocol == protocol


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_communities": 0}, "every community needs an item"),
        ({"num_items": 5}, "'num_items' is 5"),
        ({"num_interactions": 0}, "'num_interactions' is 0"),
        ({"affinity": 1.2}, "'affinity' is 1.2"),
        ({"drift": -1.0}, "drift at least 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic_stream(**options)  # type: ignore[arg-type]
