import math

import pytest
import torch
from planted import double, embeddings, generator, learn, leaves, triplets, user_items

from ccdgraph.distill.cd import CD
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import recommend_lists
from ccdgraph.sampling import Entities
from ccdgraph.testing import check_term

PAIRS = [(0, 1), (0, 4), (3, 1), (3, 2), (3, 7), (5, 7), *((2, i) for i in range(8))]
SEEN, DIM = user_items(PAIRS), 3


def make(teacher=None, scores=None, **options) -> CD:
    teacher = teacher or embeddings(4, 1)
    given, lists = recommend_lists(teacher, torch.arange(6), 6, SEEN)
    scores = given if scores is None else scores
    options = {"k": 4, "temperature": 0.5, "scale": 2.0, "shift": 0.3, **options}
    return CD(lists, scores, SEEN, generator=generator(5), **options)


def test_value_and_gradient_equal_a_loop():
    teacher, out, term = embeddings(4, 1), leaves(double(embeddings(DIM))), make()
    term.label = term.label.double()
    scores, wanted, expected = out.user @ out.item.T, teacher.user @ teacher.item.T, 0
    for u in range(6):
        for place in term.drawn[u].tolist():
            if place >= 0:
                i = int(term.lists[u, place])
                q = 1 / (1 + math.exp(-(float(wanted[u, i]) + 0.3) / 2))
                p = scores[u, i].sigmoid()
                expected = expected - q * p.log() - (1 - q) * (1 - p).log()
    loss, leaf = term(out, Entities(torch.arange(6))), (out.user, out.item)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(loss, leaf),
        torch.autograd.grad(expected, leaf),
        rtol=1e-6,
        atol=1e-6,
    )


def test_one_user_by_hand():
    """Label sigmoid(ln 3) = 3/4 at score 0: log 2 whatever the label; at ln 3 its entropy."""
    seen, lists = user_items([], 1, 1), torch.tensor([[0]])
    term = CD(lists, torch.tensor([[math.log(3)]]), seen, k=1, generator=generator())
    batch = Entities(torch.tensor([0]))
    zero = Embeddings(torch.zeros(1, 1), torch.ones(1, 1))
    equal = Embeddings(torch.tensor([[math.log(3)]]), torch.ones(1, 1))
    assert float(term(zero, batch)) == pytest.approx(math.log(2))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(term(equal, batch)) == pytest.approx(entropy)


def test_draws_are_unseen_and_change_with_the_epoch():
    term, drawn = make(k=2), set()
    for epoch in range(10):
        term.begin_epoch(epoch)
        drawn.add(tuple(term.drawn[4].tolist()))
        for u in range(6):
            ids = {int(term.lists[u, p]) for p in term.drawn[u] if p >= 0}
            assert not ids & {i for owner, i in PAIRS if owner == u}
    assert len(drawn) > 1


def test_contract():
    scores = recommend_lists(embeddings(4, 1), torch.arange(6), 6, SEEN)[0]
    scores = scores.clone().requires_grad_()
    check_term(make(scores=scores), embeddings(DIM), triplets(), frozen=(scores,))


def test_a_user_without_unseen_items_costs_nothing():
    out = leaves(embeddings(DIM))
    loss = make()(out, Entities(torch.tensor([2])))
    assert loss.detach() == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, (out.user, out.item)))


def test_bad_input_is_refused():
    scores = recommend_lists(embeddings(4, 1), torch.arange(6), 6, SEEN)[0]
    for value in (float("nan"), float("inf")):
        broken = scores.clone()
        broken[4, 1] = value
        with pytest.raises(ValueError, match="'scores' holds NaN or infinity"):
            make(scores=broken)
    with pytest.raises(ValueError, match=r"'scores' has shape \(6, 5\), 'lists' \(6, 6\)"):
        make(scores=scores[:, :5])
    with pytest.raises(ValueError, match="'lists' has 6 entries a row, expected at least 9"):
        make(k=9)
    with pytest.raises(ValueError, match="for 6 users and 8 items, the student has 6 and 9"):
        make()(embeddings(DIM, items=9), triplets())


def test_the_student_takes_over_the_labels():
    """Labels of the reversed lists fail."""
    teacher, found = embeddings(3, 1), []
    lists = recommend_lists(teacher, torch.arange(6), 6, SEEN)[1]
    real = (lists >= 0).nonzero(as_tuple=True)
    wanted = teacher.pairs(real[0], lists[real])
    for flip in (False, True):
        term = make(teacher, k=6, scale=1.0, shift=0.0)
        term.label = term.label.flip(1) if flip else term.label
        out = learn(term, embeddings(3, 2), Entities(torch.arange(6)), steps=200)
        pair = torch.stack([out.pairs(real[0], lists[real]), wanted])
        found.append(float(torch.corrcoef(pair)[0, 1]))
    assert found[0] > 0.9 > 0.6 > found[1]
