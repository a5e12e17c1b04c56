import math

import pytest
import torch
from planted import generator, user_items

from ccdgraph.distill.lists import (
    check_lists,
    draw_listed,
    draw_rest,
    listed_keys,
    transposed,
    users_once,
)
from ccdgraph.sampling import Entities, Triplets


def inclusion(lists, k, temperature, draws):
    """How often each place of one list is drawn."""
    many = lists.expand(draws, -1)
    chosen = draw_listed(many, k, temperature, generator=generator())
    return torch.bincount(chosen.flatten(), minlength=lists.size(1)) / draws


@pytest.mark.parametrize(
    ("k", "places", "published"),
    [
        (40, [0, 20, 30, 40, 50, 60], [1.00, 0.98, 0.77, 0.41, 0.18, 0.07]),
        (20, [0, 10, 20, 30, 40], [0.98, 0.77, 0.41, 0.18, 0.07]),
    ],
)
def test_inclusion_probabilities_are_those_of_the_published_sampler(k, places, published):
    found = inclusion(torch.arange(500).unsqueeze(0), k, 10.0, 20_000)
    assert found[places].tolist() == pytest.approx(published, abs=0.015)


def test_inclusion_equals_sequential_draws_without_replacement():
    """Three places, two draws, weights 1, q, q^2: all orders by hand."""
    q = math.exp(-1 / 2)
    weight = [1.0, q, q * q]
    expected = [0.0, 0.0, 0.0]
    for a in range(3):
        for b in range(3):
            if a != b:
                chance = weight[a] / sum(weight) * weight[b] / (sum(weight) - weight[a])
                expected[a] += chance
                expected[b] += chance
    found = inclusion(torch.arange(3).unsqueeze(0), 2, 2.0, 40_000)
    assert found.tolist() == pytest.approx(expected, abs=0.01)


def test_drawn_entries_keep_the_order_of_the_list():
    lists = torch.stack([torch.randperm(90, generator=generator(s)) for s in range(50)])
    chosen = draw_listed(lists, 20, 5.0, generator=generator())
    place = (chosen.unsqueeze(2) == lists.unsqueeze(1)).int().argmax(2)
    assert (place.diff(dim=1) > 0).all()


def test_short_lists_are_taken_whole():
    lists = torch.tensor([[7, 3, -1, -1], [5, 4, 2, 1], [-1, -1, -1, -1]])
    chosen = draw_listed(lists, 3, 10.0, generator=generator())
    assert chosen[0].tolist() == [7, 3, -1] and chosen[2].tolist() == [-1, -1, -1]
    assert (chosen[1] >= 0).all()


def test_the_rest_is_uniform_and_distinct():
    """Row 0 may draw 0, 3 and 5, row 1 everything, row 2 the item 2 alone, row 3 nothing."""
    pairs = [(0, 1), (0, 2), (0, 4)] + [(2, i) for i in range(6) if i != 2]
    exclude = user_items(pairs + [(3, i) for i in range(6)], 4, 6).keys()
    draw, count = generator(), torch.zeros(2, 6)
    for _ in range(4000):
        rest = draw_rest(exclude, 4, 6, 2, generator=draw)
        assert sorted(rest[2].tolist()) == [-1, 2] and rest[3].tolist() == [-1, -1]
        for row in range(2):
            assert len(set(rest[row].tolist())) == 2
            count[row, rest[row]] += 1
    expected = torch.tensor([[2 / 3, 0, 0, 2 / 3, 0, 2 / 3], [1 / 3] * 6])
    assert (count / 4000 - expected).abs().max() < 0.03


def test_as_many_draws_as_free_entries_take_them_all():
    rest = draw_rest(user_items([(0, 0), (1, 5)], 2, 6).keys(), 2, 6, 5, generator=generator())
    assert rest.sort(1).values.tolist() == [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]
    rest = draw_rest(torch.empty(0, dtype=torch.int64), 1, 4, 9, generator=generator())
    assert sorted(rest[0].tolist()) == [-1] * 5 + [0, 1, 2, 3]


def test_listed_keys_join_lists_and_seen():
    keys = listed_keys(torch.tensor([[2, -1], [0, 1]]), user_items([(0, 0), (1, 1)], 2, 3))
    assert keys.tolist() == [0, 2, 3, 4]


def test_transposition_twice_gives_the_lists_back():
    seen = user_items([(0, 1), (0, 4), (3, 1), (5, 7)])
    back = transposed(transposed(seen))
    assert back.indptr.tolist() == seen.indptr.tolist() and back.item.tolist() == seen.item.tolist()


def test_users_of_a_batch_are_distinct():
    place = torch.tensor([3, 1, 3])
    assert users_once(Entities(place[:2]))[0].tolist() == [3, 1]  # which are distinct as they come
    assert users_once(Triplets(place, place, place.unsqueeze(1)))[0].tolist() == [1, 3]


def test_unfit_lists_are_refused():
    seen = user_items([], 3, 5)
    with pytest.raises(ValueError, match=r"'lists' has shape \(2, 4\).* 3 rows"):
        check_lists(torch.zeros(2, 4, dtype=torch.int64), seen, 2)
    with pytest.raises(ValueError, match="'mine' has 4 entries a row, expected at least 9"):
        check_lists(torch.zeros(3, 4, dtype=torch.int64), seen, 9, "mine")
    with pytest.raises(ValueError, match="holds id 5, 'seen' knows 5"):
        check_lists(torch.full((3, 4), 5), seen, 2)
