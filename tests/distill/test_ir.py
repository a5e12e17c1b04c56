import pytest
import torch
from planted import (
    NUM_ITEMS,
    double,
    embeddings,
    generator,
    learn,
    leaves,
    triplets,
    user_items,
)

from ccdgraph.distill.ir import IRRRD
from ccdgraph.distill.teacher import TeacherLists, teacher_lists
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities, Triplets
from ccdgraph.testing import check_term

DIM = 3
PAIRS = [(0, 1), (0, 4), (3, 1), (3, 2), (3, 7), (5, 7)]


def lists_of(teacher: Embeddings, pairs=PAIRS, k=4) -> TeacherLists:
    return teacher_lists(teacher, user_items(pairs, teacher.num_users, teacher.num_items), k=k)


def make(pairs=PAIRS, **options) -> IRRRD:
    lists = lists_of(embeddings(4, 1), pairs)
    options = {"k": 3, "k_users": 2, "temperature": 2.0, **options}
    return IRRRD(lists, user_items(pairs), generator=generator(3), **options)


def relaxed_loop(scores, rows, side):
    """The equation with the drawn ids, one place at a time; rows of ``scores`` are the queries."""
    total = 0
    for row in rows:
        listed = [int(e) for e in side.listed[row] if e >= 0]
        rest = [int(e) for e in side.rest[row] if e >= 0]
        for place, entry in enumerate(listed):
            below = sum(scores[row, other].exp() for other in listed[place:] + rest)
            total = total - (scores[row, entry].exp() / below).log()
    return total


@pytest.mark.parametrize("queries", ["sampled", "batch"])
def test_the_loss_equals_loops_over_both_sides(queries):
    term, out = make(queries=queries, item_weight=0.7), leaves(double(embeddings(DIM)))
    scores, users = out.user @ out.item.T, [0, 3, 5]
    items = [1, 2, 4, 6, 7]
    if queries == "sampled":
        drawn = torch.cat([term.by_user.listed[users], term.by_user.rest[users]]).flatten()
        items = sorted({int(i) for i in drawn if i >= 0})
    expected = relaxed_loop(scores, users, term.by_user)
    expected = expected + 0.7 * relaxed_loop(scores.T, items, term.by_item)
    loss, leaf = term(out, triplets()), (out.user, out.item)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, leaf))


def wide_world(**options):
    """Scores that are all zero, in a world with room for every draw."""
    out = Embeddings(torch.zeros(90, 2), torch.zeros(100, 2))
    lists = lists_of(embeddings(4, 1, 90, 100), [(0, 1)], 40)
    return out, IRRRD(lists, user_items([(0, 1)], 90, 100), generator=generator(), **options)


def test_published_constants_of_equal_scores():
    """ln(80! / 40!) = 163.35248 a user and ln(40! / 20!) = 67.98502 an item."""
    batch = Triplets(torch.tensor([3, 7]), torch.tensor([0, 5]), torch.tensor([[2], [5]]))
    out, term = wide_world(item_weight=0.0)
    assert float(term(out, batch)) == pytest.approx(2 * 163.35248, rel=1e-6)
    out, term = wide_world(item_weight=1.0, queries="batch")
    assert float(term(out, batch)) == pytest.approx(2 * 163.35248 + 3 * 67.98502, rel=1e-6)


def test_draws_come_from_the_lists_and_from_outside_of_them():
    term = make()
    for epoch in range(20):
        term.begin_epoch(epoch)
        for side, seen in ((term.by_user, PAIRS), (term.by_item, [(i, u) for u, i in PAIRS])):
            for row, listed in enumerate(side.lists.tolist()):
                known = {e for r, e in seen if r == row}
                assert set(side.listed[row].tolist()) <= set(listed)
                rest = {int(e) for e in side.rest[row] if e >= 0}
                assert not rest & (known | set(listed))


def test_draws_stay_within_an_epoch_and_change_with_it():
    out, term = wide_world()
    first = term.by_item.listed.clone(), term.by_user.rest.clone()
    term(out, triplets())
    assert torch.equal(term.by_item.listed, first[0]) and torch.equal(term.by_user.rest, first[1])
    term.begin_epoch(1)
    assert not torch.equal(term.by_item.listed, first[0])
    assert not torch.equal(term.by_user.rest, first[1])


@pytest.mark.parametrize("queries", ["sampled", "batch"])
def test_contract(queries):
    check_term(make(queries=queries), embeddings(DIM), triplets())


def test_a_user_without_unseen_items_costs_nothing():
    pairs = PAIRS + [(2, i) for i in range(NUM_ITEMS)]
    term, out = make(pairs, item_weight=0.0), leaves(embeddings(DIM))
    loss = term(out, Entities(torch.tensor([2])))
    assert loss.detach() == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, (out.user, out.item)))


def test_a_row_without_a_rest_is_ranked_by_its_list_alone():
    """Six of eight items are seen, so the list of two is all there is."""
    pairs = PAIRS + [(1, i) for i in range(6)]
    term, out = make(pairs, item_weight=0.0), leaves(double(embeddings(DIM)))
    assert (term.by_user.rest[1] < 0).all()
    loss = term(out, Entities(torch.tensor([1])))
    torch.testing.assert_close(loss, relaxed_loop(out.user @ out.item.T, [1], term.by_user))
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (out.user, out.item)))


def test_a_batch_of_one_row():
    batch = Triplets(torch.tensor([2]), torch.tensor([0]), torch.tensor([[0]]))
    assert make()(embeddings(DIM), batch) > 0


def test_bad_input_is_refused():
    seen, lists = user_items(PAIRS), lists_of(embeddings(4, 1))
    with pytest.raises(ValueError, match=r"'lists.items' has 4 entries a row, .* at least 40"):
        IRRRD(lists, seen, generator=generator())
    with pytest.raises(ValueError, match=r"'lists.users' has shape \(6, 4\)"):
        IRRRD(TeacherLists(lists.items, lists.users[:6]), seen, k=2, generator=generator())
    with pytest.raises(ValueError, match="for 6 users and 8 items, the student has 6 and 9"):
        make()(embeddings(DIM, items=9), triplets())
    with pytest.raises(ValueError, match="'queries' is 'all'"):
        make(queries="all")
    with pytest.raises(ValueError, match="'batch', which needs batches of triplets"):
        make(queries="batch")(embeddings(DIM), Entities(torch.tensor([1])))


def order_agreement(out: Embeddings, lists: torch.Tensor) -> float:
    """Share of list pairs that the student scores in the teacher's order."""
    rows = torch.arange(len(lists)).unsqueeze(1)
    scores = out.pairs(rows, lists)
    higher = scores.unsqueeze(2) > scores.unsqueeze(1)
    upper = torch.ones(lists.size(1), lists.size(1)).triu(1).bool()
    return float(higher[:, upper].float().mean())


def test_the_student_takes_over_the_order_of_both_sides():
    """Lists handed over in reversed order fail; so does the item side left out, for items."""
    teacher = embeddings(3, 1, 12, 15)
    lists, seen = lists_of(teacher, [], 6), user_items([], 12, 15)
    start, batch = embeddings(3, 2, 12, 15), Entities(torch.arange(12))
    found = {}
    for name, given, weight in (
        ("both", lists, 1.0),
        ("reversed", TeacherLists(lists.items.flip(1), lists.users.flip(1)), 1.0),
        ("users", lists, 0.0),
    ):
        term = IRRRD(
            given, seen, k=6, k_users=6, item_weight=weight, temperature=20.0, generator=generator()
        )
        out = learn(term, start, batch, steps=200)
        found[name] = [
            order_agreement(out, lists.items),
            order_agreement(Embeddings(out.item, out.user), lists.users),
        ]
    assert min(found["both"]) > 0.9 > 0.5 > max(found["reversed"])
    assert found["both"][1] > found["users"][1] + 0.1
