import math

import pytest
import torch
from planted import double, embeddings, generator, learn, leaves, triplets, user_items
from torch.nn import functional

from ccdgraph.distill.rd import RD
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities
from ccdgraph.testing import check_term

LISTS = torch.tensor([[2, 3, 0], [5, -1, -1], [-1, -1, -1], [0, 4, 6], [1, 2, 3], [6, 5, 4]])
PAIRS = [(0, 1), (0, 4), (3, 1), (3, 2), (3, 7), (5, 7), *((2, i) for i in range(8))]
DIM = 3


def make(lists=LISTS, pairs=PAIRS, epoch=None, **options) -> RD:
    options = {"k": 3, "num_samples": 7, "start": 2, "sharpness": 1.5, **options}
    seen = user_items(pairs, len(lists), 8)
    term = RD(lists, seen, generator=generator(5), **options)
    if epoch is not None:
        term.begin_epoch(epoch)
    return term


def naive(term: RD, out: Embeddings, users) -> torch.Tensor:
    scores, total = out.user @ out.item.T, 0
    for u in users:
        weight = []
        for r in range(1, 4):
            value = math.exp(-r / 1.5) / sum(math.exp(-x / 1.5) for x in range(1, 4))
            if term.samples is not None:
                row = scores[u].detach()
                own = row[max(int(LISTS[u, r - 1]), 0)]
                n = sum(float(row[i]) > float(own) for i in term.samples[u])
                value *= max(math.tanh(0.1 * (math.floor(n / 7 * 7) + 1 - r)), 0)
            weight.append(value)
        whole = sum(weight) if sum(weight) > 0 else 1
        for r, item in enumerate(LISTS[u].tolist()):
            if item >= 0:
                total = total - weight[r] / whole * functional.logsigmoid(scores[u, item])
    return total


@pytest.mark.parametrize("epoch", [0, 2])
def test_value_and_gradient_equal_a_loop(epoch):
    """Eight items and seven samples, so the rank is the count itself plus one."""
    term, out = make(epoch=epoch), leaves(double(embeddings(DIM)))
    loss = term(out, Entities(torch.arange(6)))
    expected = naive(term, out, range(6))
    torch.testing.assert_close(loss, expected)
    leaf = (out.user, out.item)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, leaf))


def test_one_user_by_hand():
    """Two places, scores 0 and 1; both of two samples beat the first, none the second.

    Ranks 2 (3 - 1) / 2 + 1 = 3 and 1; discrepancies 2 and -1: all weight is on the first.
    """
    out = Embeddings(torch.tensor([[1.0]]), torch.tensor([[0.0], [1.0], [0.5]]))
    term = RD(
        torch.tensor([[0, 1]]),
        user_items([(0, 0), (0, 1)], 1, 3),
        k=2,
        num_samples=2,
        start=0,
        generator=generator(),
    )
    assert float(term(out, Entities(torch.tensor([0])))) == pytest.approx(
        (math.e * math.log(2) + math.log(1 + 1 / math.e)) / (math.e + 1)
    )
    term.begin_epoch(0)
    assert term.samples.tolist() == [[2, 2]]
    assert float(term(out, Entities(torch.tensor([0])))) == pytest.approx(math.log(2))


def test_the_students_ranks_count_from_the_start_epoch():
    assert make(epoch=1).samples is None and make(epoch=2).samples.shape == (6, 7)


def test_samples_are_unseen():
    term = make(epoch=2)
    seen = {(u, i) for u, i in PAIRS if u != 2}
    assert not any((u, i) in seen for u, row in enumerate(term.samples.tolist()) for i in row)


def test_contract():
    check_term(make(epoch=2), embeddings(DIM), triplets())
    check_term(make(start=0), embeddings(DIM), triplets())


def test_a_user_without_unseen_items_costs_nothing():
    out = leaves(embeddings(DIM))
    loss = make(epoch=2)(out, Entities(torch.tensor([2])))
    assert loss.detach() == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, (out.user, out.item)))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"'lists' has 3 entries a row, expected at least 10"):
        make(k=10)
    with pytest.raises(ValueError, match="for 6 users and 8 items, the student has 5 and 8"):
        make()(embeddings(DIM, users=5), triplets())


def test_listed_items_rise_above_the_others():
    """Weights that are not detached from the scores, or lists of other users, fail."""
    out = learn(make(epoch=2, start=0), embeddings(DIM, 1), Entities(torch.arange(6)), steps=150)
    listed = out.pairs(torch.arange(6).unsqueeze(1), LISTS.clamp(min=0))[[0, 3, 4, 5]]
    others = out.scores(torch.arange(6))[[0, 3, 4, 5]]
    others = others.scatter(1, LISTS[[0, 3, 4, 5]], float("-inf")).amax(1)
    assert float((listed.amax(1) > others).float().mean()) == 1.0
    wrong = learn(make(LISTS.flip(0)), embeddings(DIM, 1), Entities(torch.arange(6)), steps=150)
    assert float(out.pairs(torch.tensor(3), LISTS[3]).mean()) > float(
        wrong.pairs(torch.tensor(3), LISTS[3]).mean()
    )
