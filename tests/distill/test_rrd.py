import math

import pytest
import torch
from torch import Tensor

from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.distill.rrd import RRD
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities

NUM_USERS, NUM_ITEMS, K = 6, 9, 3


def user_items(pairs: list[tuple[int, int]], num_users: int, num_items: int) -> UserItems:
    user, item = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)
    return UserItems.from_interactions([Interactions(user, item)], num_users, num_items)


def embeddings(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Embeddings:
    generator = torch.Generator().manual_seed(0)
    user, item = (
        (torch.randn(n, 4, generator=generator, dtype=dtype) * scale).requires_grad_()
        for n in (NUM_USERS, NUM_ITEMS)
    )
    return Embeddings(user, item)


def instance(side: str) -> tuple[Tensor, UserItems]:
    """Lists with full, short and empty rows, that do and do not hold entry 0, and seen entries."""
    rows, columns = (NUM_USERS, NUM_ITEMS) if side == "user" else (NUM_ITEMS, NUM_USERS)
    generator = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(columns, generator=generator) for _ in range(rows)])
    lists = order[:, :K].clone()
    seen = [(r, int(c)) for r in range(rows) for c in order[r, K : K + 2]]
    lists[1, 2] = -1
    lists[2, 1:] = -1
    lists[3] = -1
    # Row 4 has nothing but its list, row 5 neither a list nor a rest.
    listed = set(lists[4].tolist())
    seen += [(4, c) for c in range(columns) if c not in listed]
    lists[5] = -1
    seen += [(5, c) for c in range(columns)]
    return lists, user_items(seen, rows, columns)


def naive(scores: Tensor, lists: Tensor, seen: UserItems, rows, dropped=()) -> Tensor:
    """The equation, one user and one place at a time, on scores of the right orientation."""
    total = scores.new_zeros(())
    for row in rows:
        chosen = [int(c) for c in lists[row] if c >= 0]
        known = {int(c) for c in seen.item[seen.indptr[row] : seen.indptr[row + 1]]}
        rest = set(range(scores.size(1))) - known - set(chosen) - set(dropped)
        for place, entry in enumerate(chosen):
            below = chosen[place:] + sorted(rest)
            denominator = sum(scores[row, other].exp() for other in below)
            total = total - (scores[row, entry].exp() / denominator).log()
    return total


def oriented(out: Embeddings, side: str) -> Tensor:
    scores = out.user @ out.item.T
    return scores if side == "user" else scores.T


@pytest.mark.parametrize("side", ["user", "item"])
def test_value_and_gradient_equal_a_double_loop(side):
    lists, seen = instance(side)
    out, batch = embeddings(), torch.tensor([4, 0, 3, 2, 5, 1])
    loss = RRD(lists, seen, side=side)(out, Entities(batch))
    expected = naive(oriented(out, side), lists, seen, batch.tolist())
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, (out.user, out.item))
    theirs = torch.autograd.grad(expected, (out.user, out.item))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("num_rest", [1, 2, 5])
@pytest.mark.parametrize("side", ["user", "item"])
def test_a_reduced_rest_equals_the_loop_without_the_dropped_entries(side, num_rest):
    """Below half of the entries the kept ones alone are scored, above it all."""
    lists, seen = instance(side)
    draw = torch.Generator().manual_seed(2)
    term = RRD(lists, seen, side=side, num_rest=num_rest, generator=draw)
    term.begin_epoch(0)
    assert len(term.dropped) == seen.num_items - num_rest
    out, batch = embeddings(), torch.arange(lists.size(0))
    loss = term(out, Entities(batch))
    expected = naive(oriented(out, side), lists, seen, batch.tolist(), term.dropped.tolist())
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, (out.user, out.item))
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (out.user, out.item)))


@pytest.mark.parametrize("side", ["user", "item"])
def test_gradcheck(side):
    lists, seen = instance(side)
    term, out = RRD(lists, seen, side=side), embeddings()
    batch = Entities(torch.arange(lists.size(0)))
    assert torch.autograd.gradcheck(
        lambda user, item: term(Embeddings(user, item), batch), (out.user, out.item)
    )


def test_one_user_by_hand():
    """Scores 2 and 1 of the list [2, 0] and 0 of the rest [1]."""
    out = Embeddings(torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0], [2.0]]))
    term = RRD(torch.tensor([[2, 0]]), user_items([], 1, 3))
    first = math.log(math.e**2 + math.e + 1) - 2
    second = math.log(math.e + 1) - 1
    assert float(term(out, Entities(torch.tensor([0])))) == pytest.approx(first + second)


def test_equal_scores_give_the_logarithm_of_falling_factorials():
    """The published constant: 40 listed and 40 others cost ln(80! / 40!) a user."""
    out = Embeddings(torch.zeros(2, 3), torch.zeros(80, 3))
    term = RRD(torch.arange(40).repeat(2, 1), user_items([], 2, 80))
    loss = float(term(out, Entities(torch.arange(2))))
    assert loss == pytest.approx(2 * 163.35248, rel=1e-6)


def test_a_user_without_a_list_costs_nothing():
    lists, seen = instance("user")
    out = embeddings(torch.float32)
    loss = RRD(lists, seen)(out, Entities(torch.tensor([3, 5])))
    assert loss.detach() == 0
    assert all(not g.any() for g in torch.autograd.grad(loss, (out.user, out.item)))


@pytest.mark.parametrize("side", ["user", "item"])
def test_large_scores_stay_finite(side):
    lists, seen = instance(side)
    out = embeddings(torch.float32, scale=1.0)
    top = float((out.user @ out.item.T).detach().abs().max())
    out = Embeddings(
        (out.user * 1e3 / top).detach().requires_grad_(), out.item.detach().requires_grad_()
    )
    assert float((out.user @ out.item.T).detach().abs().max()) == pytest.approx(1e3)
    loss = RRD(lists, seen, side=side)(out, Entities(torch.arange(lists.size(0))))
    gradients = torch.autograd.grad(loss, (out.user, out.item))
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients)
    assert loss.detach() > 100  # scores of that size are neither clipped nor clamped


def test_the_rest_is_redrawn_every_few_epochs():
    generator = torch.Generator().manual_seed(0)
    term = RRD(
        torch.zeros(1, 1, dtype=torch.int64),
        user_items([], 1, 50),
        num_rest=20,
        redraw=3,
        generator=generator,
    )
    drawn, places = [], set()
    for epoch in range(7):
        term.begin_epoch(epoch)
        places.add((term.kept.data_ptr(), term.dropped.data_ptr(), term.fixed(epoch)))
        drawn.append(set(term.dropped.tolist()))
    assert all(len(dropped) == 30 for dropped in drawn)
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3]
    assert drawn[3] == drawn[4] == drawn[5] != drawn[6]
    assert len(places) == 1  # or a recorded step would go on with the first draw


@pytest.mark.parametrize("num_rest", [0, 9, 100])
def test_the_whole_rest_counts_when_the_sample_would_not_be_smaller(num_rest):
    lists, seen = instance("user")
    term = RRD(lists, seen, num_rest=num_rest)
    term.begin_epoch(0)
    assert term.dropped is None


def test_lists_for_other_entities_are_refused():
    with pytest.raises(ValueError, match=r"'lists' has 4 rows, 'seen' 6.* every item"):
        RRD(torch.zeros(4, 2, dtype=torch.int64), user_items([], 6, 3), side="item")


def test_nothing_of_the_teacher_is_trained():
    """The term holds ids, so it has no parameter and leaves no path back to a teacher."""
    lists, seen = instance("user")
    term = RRD(lists, seen)
    assert not list(term.parameters()) and not term.place.is_floating_point()
