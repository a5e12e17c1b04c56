import pytest
import torch
from planted import (
    double,
    embeddings,
    everyone,
    generator,
    learn,
    leaves,
    similarity,
    triplets,
    user_items,
)

from ccdgraph.distill.phr import PHR, enriched
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term

DIM, TEACHER_DIM = 2, 3
PAIRS = [(0, 1), (0, 4), (3, 1), (3, 2), (3, 7), (5, 7)]  # user 1 and item 0 have no neighbour


def make(teacher=None, **options) -> PHR:
    return PHR(teacher or embeddings(TEACHER_DIM, 1), DIM, generator=generator(7), **options)


def test_the_context_by_hand():
    """User 0 has items 0 and 1, user 1 none; item 2 has nobody."""
    teacher = Embeddings(torch.tensor([[4.0], [7.0]]), torch.tensor([[1.0], [5.0], [9.0]]))
    context = enriched(teacher, user_items([(0, 0), (0, 1)], 2, 3))
    assert context.user.tolist() == [[3.5], [7.0]]
    assert context.item.tolist() == [[2.5], [4.5], [9.0]]


def test_the_context_equals_a_loop_over_neighbours():
    teacher = embeddings(TEACHER_DIM, 1)
    context = enriched(teacher, user_items(PAIRS))
    sides = (
        (teacher.user, teacher.item, context.user, PAIRS),
        (teacher.item, teacher.user, context.item, [(i, u) for u, i in PAIRS]),
    )
    for own, others, ours, pairs in sides:
        for entity in range(len(own)):
            near = [others[other] for e, other in pairs if e == entity]
            expected = 0.5 * (own[entity] + sum(near) / len(near)) if near else own[entity]
            torch.testing.assert_close(ours[entity], expected)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seen", [None, user_items(PAIRS)])
def test_the_loss_equals_a_loop_over_entities(shared, seen):
    term, out = make(shared=shared, seen=seen), embeddings(DIM)
    expected = 0
    sides = (
        (term.user_network, term.context.user, term.teacher.user, out.user, [0, 3, 5], 1.0),
        (term.item_network, term.context.item, term.teacher.item, out.item, [1, 2, 7], 0.5),
        (term.item_network, term.context.item, term.teacher.item, out.item, [1, 4, 6], 0.5),
    )
    for network, context, teacher, student, ids, weight in sides:
        for e in ids:
            hidden = torch.relu(network.first.T @ context[e] + network.first_bias)
            theta = (network.last.T @ hidden + network.last_bias).view(TEACHER_DIM, DIM)
            expected = expected + weight * ((teacher[e] - theta @ student[e]) ** 2).sum()
    torch.testing.assert_close(term(out, triplets()), expected)


def test_parameter_count_is_that_of_the_description():
    """Widths 200 and 20: hidden 2100, 200 * 2100 + 2100 + 2100 * 4000 + 4000; 4200 as released."""
    teacher = embeddings(200)
    for hidden, expected in ((0.5, 8_826_100), (1.0, 17_648_200)):
        term = PHR(teacher, 20, hidden=hidden, generator=generator())
        assert sum(p.numel() for p in term.parameters()) == expected
    assert len(list(make(shared=True).parameters())) == 4
    assert len(list(make(shared=False).parameters())) == 8


def test_first_estimates_are_small():
    term, out = make(), embeddings(DIM)
    estimate = term.user_network(term.context.user, out.user)
    assert float(estimate.detach().abs().max()) < 0.1 * float(term.teacher.user.abs().max())


def test_a_start_that_is_not_small_is_that_of_a_linear_layer():
    """Uniform within one over the root of the inputs: 4000 values come close to the bound."""
    for small, bound in ((True, 0.01), (False, 16**-0.5)):
        term = PHR(embeddings(200), 20, hidden=0.004, small_start=small, generator=generator())
        network = term.user_network
        assert network.last.shape == (16, 4000)
        for value in (network.last, network.last_bias):
            assert 0.99 * bound < float(value.detach().abs().max()) <= bound


def test_a_hidden_layer_without_width_is_refused():
    with pytest.raises(ValueError, match="'hidden' is 0, expected a share above 0"):
        make(hidden=0)


@pytest.mark.parametrize("shared", [False, True])
def test_contract(shared):
    teacher = leaves(embeddings(TEACHER_DIM, 1))
    term = make(teacher, shared=shared, seen=user_items(PAIRS))
    check_term(term, embeddings(DIM), triplets(), frozen=(teacher.user, teacher.item))


def test_a_batch_of_one_row_reaches_its_entities_alone():
    batch = Triplets(torch.tensor([2]), torch.tensor([0]), torch.tensor([[0]]))
    out, term = leaves(embeddings(DIM)), make()
    term.user_network.last_bias.data.fill_(1.0)  # lest all hidden units of one entity are off
    user, item = torch.autograd.grad(term(out, batch), (out.user, out.item))
    assert user[2].any() and not user[[0, 1, 3, 4, 5]].any()
    assert item[0].any() and not item[1:].any()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"'teacher' has 6 users and 8 items, the student 6 and 9"):
        make()(embeddings(DIM, items=9), triplets())
    with pytest.raises(ValueError, match="width 4, 'dim' is 2"):
        make()(embeddings(4), triplets())
    with pytest.raises(ValueError, match="'seen' covers 6 users and 9 items, 'teacher' 6 and 8"):
        make(seen=user_items([], 6, 9))
    broken = embeddings(TEACHER_DIM)
    broken.user[0, 0] = float("inf")
    with pytest.raises(ValueError, match="'teacher' has NaN or infinite user"):
        make(broken)


def test_the_student_learns_what_the_matrices_cannot_tell():
    """All contexts alike, so only the student's rows tell the entities of the teacher apart.

    A student that indexes the teacher by its neighbour's id fails.
    """
    teacher = double(embeddings(TEACHER_DIM, 1))
    teacher = Embeddings(teacher.user[:, :2].float(), teacher.item[:, :2].float())
    start, found = embeddings(DIM), []
    for kind in (teacher, Embeddings(teacher.user.roll(1, 0), teacher.item.roll(1, 0))):
        term = make(kind)
        term.context = Embeddings(torch.ones(6, 2), torch.ones(8, 2))
        found.append(similarity(learn(term, start, everyone(), steps=150).item, teacher.item))
    assert found[0] > 0.7 > 0.4 > found[1]
