import math

import pytest
import torch
from planted import double, embeddings, generator, learn, leaves, triplets, user_items

from ccdgraph.distill.cd import CD
from ccdgraph.distill.labels import LabelWriter, SoftLabels, read_labels
from ccdgraph.distill.rrd import RRD
from ccdgraph.distill.stored import ListwiseKD, PointwiseKD
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities
from ccdgraph.testing import check_term

EVERYONE = Entities(torch.arange(6))
LISTS = torch.tensor([[3, 0, 7], [1, 2, -1], [-1, -1, -1], [5, -1, -1], [0, 1, 2], [-1, -1, -1]])
SCORES = torch.randn(6, 3, generator=generator(4)).masked_fill(LISTS < 0, -math.inf)
both = pytest.mark.parametrize("kind", [ListwiseKD, PointwiseKD])


def loop(kind, out: Embeddings, users, *, temperature=1.0, scale=1.0, shift=0.0):
    total = out.user.sum() * 0
    for u in users:
        listed = [k for k in range(3) if LISTS[u, k] >= 0]
        s = [out.user[u] @ out.item[LISTS[u, k]] for k in listed]
        t = [float(SCORES[u, k]) for k in listed]
        for k in range(len(listed)):
            if kind is ListwiseKD:
                p = math.exp(t[k] / temperature) / sum(math.exp(x / temperature) for x in t)
                total = total - p * (s[k].exp() / sum(x.exp() for x in s)).log()
            else:
                q = 1 / (1 + math.exp(-(t[k] + shift) / scale))
                total = total - q * s[k].sigmoid().log() - (1 - q) * (1 - s[k].sigmoid()).log()
    return total


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((ListwiseKD, {}), (ListwiseKD, {"temperature": 0.3})),
        *((PointwiseKD, {}), (PointwiseKD, {"scale": 2.0, "shift": 0.4})),
    ],
)
def test_value_and_gradient_equal_a_loop(kind, options):
    out = leaves(double(embeddings(3)))
    term = kind(LISTS, SCORES.double(), **options)
    for batch, users in ((EVERYONE, range(6)), (triplets(), (0, 3, 5))):
        loss, expected = term(out, batch), loop(kind, out, users, **options)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(loss, (out.user, out.item)),
            torch.autograd.grad(expected, (out.user, out.item)),
        )


@both
def test_repeated_rows_of_a_device_count_once(kind, monkeypatch):
    """What a CUDA device is given, with nothing to wait for; counting every row fails."""
    from ccdgraph.distill import lists, stored

    out, term = leaves(double(embeddings(3))), kind(LISTS, SCORES.double())
    expected = term(out, triplets())
    monkeypatch.setattr(stored, "users_once", lambda batch: lists.sorted_once(batch.user))
    found = term(out, triplets())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (out.user, out.item)),
        torch.autograd.grad(expected, (out.user, out.item)),
    )


def test_one_user_by_hand():
    """Teacher 3 to 1: 3/4 and 1/4; a student that scores both 0 gives each 1/2."""
    lists, scores = torch.tensor([[1, 0]]), torch.tensor([[math.log(3), 0.0]])
    out, one = Embeddings(torch.zeros(1, 1), torch.ones(2, 1)), Entities(torch.tensor([0]))
    assert float(ListwiseKD(lists, scores)(out, one)) == pytest.approx(math.log(2))
    assert float(PointwiseKD(lists, scores)(out, one)) == pytest.approx(2 * math.log(2))
    equal = Embeddings(torch.ones(1, 1), scores.flip(1).T)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(ListwiseKD(lists, scores)(equal, one)) == pytest.approx(entropy)
    assert float(PointwiseKD(lists, scores)(equal, one)) == pytest.approx(entropy + math.log(2))


@both
def test_contract(kind):
    scores = SCORES.clone().requires_grad_()
    check_term(kind(LISTS, scores), embeddings(3), EVERYONE, frozen=(scores,))


@both
def test_missing_labels_have_neither_loss_nor_gradient(kind):
    """Padding that counts as item 0 moves item 0 and fails."""
    out, term = leaves(embeddings(3)), kind(LISTS, SCORES)
    loss = term(out, Entities(torch.tensor([2, 5])))
    assert loss.detach() == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, (out.user, out.item)))
    some = term(out, Entities(torch.tensor([1, 2, 3, 5])))
    user, item = torch.autograd.grad(some, (out.user, out.item))
    assert not user[[2, 5]].any()
    assert not item[[0, 3, 4, 6, 7]].any()


@both
def test_a_list_that_is_empty_for_everyone_costs_nothing(kind):
    out = leaves(embeddings(3))
    for width in (0, 2):
        term = kind(torch.full((6, width), -1), torch.full((6, width), -math.inf))
        assert term(out, EVERYONE).detach() == 0


@both
def test_bad_input_is_refused(kind):
    with pytest.raises(ValueError, match=r"'scores' has shape \(6, 2\), 'lists' \(6, 3\)"):
        kind(LISTS, SCORES[:, :2])
    with pytest.raises(ValueError, match="'scores' holds NaN"):
        kind(LISTS, torch.full((6, 3), math.nan))
    with pytest.raises(ValueError, match="lists are for 6 users, the student has 7"):
        kind(LISTS, SCORES)(embeddings(3, users=7), triplets())
    name = "temperature" if kind is ListwiseKD else "scale"
    with pytest.raises(ValueError, match=f"'{name}' is 0"):
        kind(LISTS, SCORES, **{name: 0.0})


@both
def test_a_student_of_the_store_equals_one_of_the_same_process(kind, tmp_path):
    """To the last bit, for users that the teacher lacks as well."""
    user = torch.tensor([0, 1, 3, 4])
    labels = SoftLabels.from_lists(user, LISTS[user], SCORES[user], version="a")
    with LabelWriter(tmp_path, {}) as writer:
        writer.write(labels, num_users=5, num_items=8)
    scores, lists = read_labels(tmp_path, "a", 0).lists(torch.arange(6))
    students = [
        learn(kind(*given), embeddings(3), EVERYONE, steps=20)
        for given in ((LISTS, SCORES), (lists, scores))
    ]
    assert torch.equal(students[0].user, students[1].user)
    assert torch.equal(students[0].item, students[1].item)


@pytest.mark.parametrize("method", [CD, RRD])
def test_other_methods_leave_missing_lists_out_as_well(method):
    """So that any of them can learn from a store."""
    out, seen = leaves(embeddings(3)), user_items([(0, 1), (2, 4)])
    if method is CD:
        term = CD(LISTS, SCORES, seen, k=3, generator=generator())
    else:
        term = RRD(LISTS, seen, generator=generator())
    term.begin_epoch(0)
    loss = term(out, Entities(torch.tensor([2, 5])))
    assert loss.detach() == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, (out.user, out.item)))
    assert term(out, EVERYONE).detach() > 0


@both
def test_the_student_takes_over_the_order(kind):
    """Scores in the reverse order fail."""
    teacher, found = embeddings(3, 1), []
    scores, lists = teacher.scores(torch.arange(6)).sort(descending=True)
    for given in (scores, scores.flip(1)):
        out = learn(kind(lists, given), embeddings(3, 2), EVERYONE, steps=200)
        pair = torch.stack(
            [out.scores(torch.arange(6)).gather(1, lists).flatten(), scores.flatten()]
        )
        found.append(float(torch.corrcoef(pair)[0, 1]))
    assert found[0] > 0.8 > 0 > found[1]
