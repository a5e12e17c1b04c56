from collections import Counter

import pytest
import torch
from torch import Tensor

from ccdgraph import sampling
from ccdgraph.data.interactions import Interactions
from ccdgraph.sampling import EntityBatches, TripletBatches, draw_negatives

# The 0.1 % point of chi-square with so many degrees of freedom.
CHI_SQUARE = {1: 10.83, 2: 13.82, 4: 18.47, 5: 20.52, 7: 24.32}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(excluded: dict[int, list[int]], num_items: int) -> Tensor:
    every = [user * num_items + item for user, items in excluded.items() for item in items]
    return torch.tensor(sorted(every), dtype=torch.int64)


def draw(users: list[int], num_items: int, num: int, excluded: dict[int, list[int]]) -> Tensor:
    return draw_negatives(
        torch.tensor(users), num_items, num, keys(excluded, num_items), generator=seeded()
    )


def assert_uniform(drawn: Tensor, free: list[int]) -> None:
    """Only items of ``free`` are drawn, all of them alike."""
    count = Counter(drawn.flatten().tolist())
    assert set(count) <= set(free)
    expected = drawn.numel() / len(free)
    if len(free) > 1:
        chi_square = sum((count[item] - expected) ** 2 / expected for item in free)
        assert chi_square < CHI_SQUARE[len(free) - 1]


EXCLUDED = {0: [0, 3, 7], 1: [], 3: [1, 2, 3, 4, 5, 6], 4: [0, 1, 2, 3, 4, 5, 7]}


@pytest.mark.parametrize("rounds", [50, 0], ids=["rejection", "exact"])
def test_negatives_are_uniform_over_the_free_items(monkeypatch, rounds):
    """Users without exclusions, with some, with all but two and with all but one item."""
    monkeypatch.setattr(sampling, "_ROUNDS", rounds)
    drawn = draw([0, 1, 3, 4] * 500, 8, 4, EXCLUDED).view(500, 4, 4)
    for place, user in enumerate((0, 1, 3, 4)):
        free = [item for item in range(8) if item not in EXCLUDED[user]]
        assert_uniform(drawn[:, place], free)


def test_the_exact_draw_maps_every_rank_to_its_free_item(monkeypatch):
    """Every free item of every user, in order, for ranks drawn at the middle of their cells."""
    num_items, generator = 9, seeded(1)
    hit = torch.rand(6, num_items, generator=generator) < 0.6
    hit[0], hit[1] = False, True
    hit[1, 4] = False
    excluded = {u: hit[u].nonzero().flatten().tolist() for u in range(6)}
    for user in range(6):
        free = [item for item in range(num_items) if not hit[user, item]]
        cells = (torch.arange(len(free), dtype=torch.float64) + 0.5) / len(free)
        monkeypatch.setattr(torch, "rand", lambda *_, **__: cells)  # noqa: B023
        owner = torch.full((len(free),), user * num_items)
        found = sampling._draw_free(owner, num_items, keys(excluded, num_items), generator=seeded())
        assert found.tolist() == free


def test_a_user_who_has_everything_gets_any_item():
    excluded = {0: list(range(6)), 1: [0]}
    drawn = draw([0, 1] * 400, 6, 2, excluded).view(400, 2, 2)
    assert_uniform(drawn[:, 0], list(range(6)))
    assert_uniform(drawn[:, 1], [1, 2, 3, 4, 5])


def test_the_last_free_item_is_found_in_a_large_catalogue():
    """Rejection alone would still be wrong in 95 of 100 rows after 50 rounds."""
    excluded = {user: [i for i in range(1000) if i != 17 * user] for user in range(20)}
    drawn = draw(list(range(20)), 1000, 3, excluded)
    assert drawn.tolist() == [[17 * user] * 3 for user in range(20)]


def test_no_exclusion_is_ever_drawn():
    generator = seeded(5)
    hit = torch.rand(40, 30, generator=generator) < 0.8
    excluded = {u: hit[u].nonzero().flatten().tolist() for u in range(40)}
    drawn = draw(list(range(40)) * 5, 30, 20, excluded)
    user = torch.arange(40).repeat(5).unsqueeze(1).expand_as(drawn)
    assert not hit[user, drawn].any()


def test_negatives_at_the_edges():
    assert draw([], 5, 2, {}).shape == (0, 2)
    assert draw([3, 1], 5, 0, {}).shape == (2, 0)
    assert draw([3, 1], 1, 2, {}).tolist() == [[0, 0], [0, 0]]


def test_equal_generators_draw_equal_negatives():
    state = torch.get_rng_state()
    assert torch.equal(draw([0, 1, 3], 8, 9, EXCLUDED), draw([0, 1, 3], 8, 9, EXCLUDED))
    assert torch.equal(state, torch.get_rng_state())


def pairs(user: Tensor, item: Tensor) -> list[tuple[int, int]]:
    return list(zip(user.tolist(), item.tolist(), strict=True))


def batches_of(num: int = 10, batch_size: int = 4, **options: int) -> TripletBatches:
    user = torch.arange(num) % 3
    events = Interactions(user, torch.arange(num) // 3)
    exclude = torch.unique(events.user * 8 + events.item)
    return TripletBatches(events, 8, exclude, batch_size=batch_size, generator=seeded(), **options)


def test_an_epoch_has_every_pair_once_and_keeps_the_last_batch():
    source = batches_of()
    wanted = sorted(pairs(source.interactions.user, source.interactions.item))
    for epoch in range(3):
        batches = list(source.epoch(epoch))
        assert [len(batch.user) for batch in batches] == [4, 4, 2]
        found = [pair for b in batches for pair in pairs(b.user, b.positive)]
        assert sorted(found) == wanted


def test_repeated_pairs_stay_repeated():
    events = Interactions(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 2]))
    source = TripletBatches(events, 3, torch.tensor([1, 2]), generator=seeded())
    (batch,) = source.epoch(0)
    assert sorted(batch.positive.tolist()) == [1, 1, 2]
    assert batch.negative.tolist() == [[0], [0], [0]]


def test_order_and_negatives_change_with_every_epoch():
    source = batches_of(10, 10, num_negatives=5)
    (first,), (second,) = source.epoch(0), source.epoch(1)
    assert not torch.equal(first.user, second.user)
    before, after = (
        dict(zip(pairs(b.user, b.positive), b.negative.tolist(), strict=True))
        for b in (first, second)
    )
    assert before.keys() == after.keys() and before != after


def test_negatives_stand_beside_their_own_user():
    """Each user has its own free items, so negatives of another row would show."""
    events = Interactions(torch.arange(6), torch.arange(6))
    exclude = torch.tensor([u * 6 + i for u in range(6) for i in range(6) if i != (u + 1) % 6])
    source = TripletBatches(events, 6, exclude, num_negatives=2, batch_size=4, generator=seeded())
    for batch in source.epoch(0):
        assert torch.equal(batch.negative, ((batch.user + 1) % 6).unsqueeze(1).expand(-1, 2))
        assert torch.equal(batch.positive, batch.user)


def test_a_block_without_rows_is_refused():
    with pytest.raises(ValueError, match="'interactions' is empty; a block needs training rows"):
        TripletBatches(Interactions.cat([]), 3, torch.zeros(0).long(), generator=seeded())


def test_every_listed_entity_comes_once_and_the_last_batch_is_kept():
    index = torch.tensor([7, 3, 4, 9, 0])
    source = EntityBatches(index, batch_size=2, generator=seeded())
    orders = []
    for epoch in range(6):
        batches = [batch.index.tolist() for batch in source.epoch(epoch)]
        assert [len(batch) for batch in batches] == [2, 2, 1]
        orders.append([entity for batch in batches for entity in batch])
        assert sorted(orders[-1]) == sorted(index.tolist())
    assert len({tuple(order) for order in orders}) > 1


def test_an_entity_listed_twice_is_refused():
    with pytest.raises(ValueError, match="'index' lists 1 entities more than once"):
        EntityBatches(torch.tensor([7, 3, 3]), generator=seeded())


def test_no_entities_give_no_real_batch():
    source = EntityBatches(torch.zeros(0, dtype=torch.int64), generator=seeded())
    assert sum(len(batch.index) for batch in source.epoch(0)) == 0
