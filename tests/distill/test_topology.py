import math

import pytest
import torch
from planted import (
    SameNoise,
    double,
    embeddings,
    everyone,
    generator,
    learn,
    leaves,
    similarity,
    triplets,
)

from ccdgraph.distill.topology import FTD, HTD
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets
from ccdgraph.testing import check_term

DIM, TEACHER_DIM, K = 3, 5, 2
USERS, ITEMS = [0, 3, 5], [1, 2, 4, 6, 7]  # the entities of triplets()


def htd(teacher=None, **options) -> HTD:
    teacher = teacher or embeddings(TEACHER_DIM, 1)
    return HTD(
        teacher, DIM, num_groups=options.pop("num_groups", K), generator=generator(7), **options
    )


def stacked(out: Embeddings) -> torch.Tensor:
    return torch.cat([out.user[USERS], out.item[ITEMS]])


def cosine(a, b):
    length = (a @ a).sqrt() * (b @ b).sqrt()
    return (a @ b) / length if length > 0 else a @ b


def test_gram_form_equals_the_dense_one():
    student, teacher = embeddings(20, 0, 300, 400), embeddings(200, 1, 300, 400)
    loss = FTD(teacher)(student, everyone(300, 400))
    s, t = (
        torch.nn.functional.normalize(torch.cat([out.user, out.item]).double())
        for out in (student, teacher)
    )
    dense = (s @ s.T - t @ t.T).square().sum()
    assert float(loss) == pytest.approx(float(dense), rel=1e-6)


def test_ftd_equals_a_loop_over_pairs_with_its_gradient():
    out, teacher = leaves(double(embeddings(DIM))), double(embeddings(TEACHER_DIM, 1))
    s, t = stacked(out), stacked(teacher)
    pairs = [(a, b) for a in range(len(s)) for b in range(len(s))]
    expected = sum((cosine(s[a], s[b]) - cosine(t[a], t[b])) ** 2 for a, b in pairs)
    loss = FTD(teacher)(out, triplets())
    torch.testing.assert_close(loss, expected)
    leaf = (out.user, out.item)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, leaf))


def test_ftd_by_hand():
    """One user and one item at 60 degrees for the student, at 90 for the teacher: 2 * (1/2)^2."""
    out = Embeddings(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, math.sqrt(3)]]))
    teacher = Embeddings(torch.tensor([[0.0, 0.0, 4.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    batch = Triplets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0]]))
    assert float(FTD(teacher)(out, batch)) == pytest.approx(0.5)


def test_a_student_that_equals_its_teacher_has_no_ftd():
    out = embeddings(DIM)
    assert float(FTD(out)(out, triplets())) == pytest.approx(0, abs=1e-4)


def htd_loop(term: HTD, out: Embeddings, prototypes, detach, positive):
    """Topology part, one pair and one group at a time."""
    s, t, teacher = stacked(out), stacked(term.teacher), term.teacher
    group = [int(term.user_experts.logits(teacher.user[u : u + 1]).argmax()) for u in USERS]
    group += [int(term.item_experts.logits(teacher.item[i : i + 1]).argmax()) + K for i in ITEMS]
    total = 0
    for a in range(len(s)):
        for b in range(len(s)):
            wanted = cosine(t[a], t[b])
            if group[a] == group[b] and (wanted > 0 or not positive):
                total = total + (cosine(s[a], s[b]) - wanted) ** 2
    means = []
    for k in sorted(set(group)):
        own = [e for e in range(len(s)) if group[e] == k]
        mean = sum(s[e] for e in own) / len(own)
        means.append((mean.detach() if detach else mean, sum(t[e] for e in own) / len(own)))
    for ours, theirs in means:
        others = zip(s, t, strict=True) if prototypes == "entities" else means
        for x, y in others:
            total = total + (cosine(ours, x) - cosine(theirs, y)) ** 2
    return total


@pytest.mark.parametrize("prototypes", ["entities", "groups"])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_htd_equals_loops_over_pairs_and_groups(prototypes, detach, positive):
    teacher, out = double(embeddings(TEACHER_DIM, 1)), leaves(double(embeddings(DIM)))
    options = {"prototypes": prototypes, "detach": detach, "positive": positive}
    term = htd(teacher, alpha=1.0, **options).double()
    loss, expected = term(out, triplets()), htd_loop(term, out, **options)
    torch.testing.assert_close(loss, expected)
    leaf = (out.user, out.item)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, leaf))


def test_alpha_mixes_topology_and_assignment():
    teacher, out = embeddings(TEACHER_DIM, 1), embeddings(DIM)
    losses = [
        float(SameNoise(htd(teacher, alpha=a))(out, triplets()).detach()) for a in (0, 0.3, 1)
    ]
    assert losses[1] == pytest.approx(0.7 * losses[0] + 0.3 * losses[2])


def test_the_assignment_loss_counts_every_item_once():
    """The union of positives and negatives, unlike DE's two halves."""
    term, out = htd(alpha=0.0), embeddings(DIM)
    term.generator.manual_seed(3)
    loss, draw, expected = term(out, triplets()), generator(3), 0
    sides = (
        (term.user_experts, term.teacher.user[USERS], out.user[USERS]),
        (term.item_experts, term.teacher.item[ITEMS], out.item[ITEMS]),
    )
    for experts, teacher, student in sides:
        choice = experts.choose(teacher, 1.0, draw)
        expected += (teacher - experts(student, choice)).square().sum()
    torch.testing.assert_close(loss, expected)


def test_gates_learn_from_the_assignment_alone():
    term = htd(alpha=1.0)
    loss = term(leaves(embeddings(DIM)), triplets())
    grads = torch.autograd.grad(loss, list(term.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in grads)


def test_constant_group_means_leave_groups_without_gradient():
    """As in the released code: with one entity in a group only the group term could differ."""
    term = htd(alpha=1.0, prototypes="groups")
    out = leaves(embeddings(DIM))
    s, group = stacked(out), term.groups(term.teacher.user[USERS], term.teacher.item[ITEMS])
    between = term._between(s, stacked(term.teacher), group, torch.ones(len(s), 1))
    assert between > 0 and not between.requires_grad


@pytest.mark.parametrize("prototypes", ["entities", "groups"])
def test_contract(prototypes):
    teacher = leaves(embeddings(TEACHER_DIM, 1))
    batch, frozen = triplets(), (teacher.user, teacher.item)
    check_term(FTD(teacher), embeddings(DIM), batch, frozen=frozen)
    term = SameNoise(htd(teacher, prototypes=prototypes, detach=False))
    check_term(term, embeddings(DIM), batch, frozen=frozen)


def test_rows_of_zeros_stay_finite():
    out, teacher = embeddings(DIM), embeddings(TEACHER_DIM, 1)
    out.user[0], teacher.user[3], out.item[1], teacher.item[1] = 0, 0, 0, 0
    for term in (FTD(teacher), htd(teacher, detach=False)):
        leaf = leaves(out)
        loss = term(leaf, triplets())
        grads = torch.autograd.grad(loss, (leaf.user, leaf.item))
        assert loss.isfinite() and all(g.isfinite().all() for g in grads)


def test_a_batch_of_one_row():
    batch = Triplets(torch.tensor([2]), torch.tensor([0]), torch.tensor([[0]]))
    for term in (FTD(embeddings(TEACHER_DIM, 1)), htd()):
        assert term(embeddings(DIM), batch).isfinite()


def test_bad_teachers_are_refused():
    other, broken = embeddings(TEACHER_DIM, items=9), embeddings(TEACHER_DIM)
    broken.user[0, 0] = float("nan")
    for make in (FTD, htd):
        with pytest.raises(ValueError, match="'teacher' has 6 users and 9 items"):
            make(other)(embeddings(DIM), triplets())
        with pytest.raises(ValueError, match="'teacher' has NaN or infinite user"):
            make(broken)
    with pytest.raises(ValueError, match="width 4, 'dim' is 3"):
        htd()(embeddings(4), triplets())
    with pytest.raises(ValueError, match="'prototypes' is 'first'"):
        htd(prototypes="first")


@pytest.mark.parametrize("method", ["ftd", "htd"])
def test_the_student_takes_over_the_geometry_of_the_teacher(method):
    """A teacher that is indexed by anything but the entity's id fails."""
    teacher = embeddings(TEACHER_DIM, 1)
    term = (
        FTD(teacher) if method == "ftd" else htd(teacher, alpha=0.9, num_groups=1, positive=False)
    )
    wrong = Embeddings(teacher.user.roll(1, 0), teacher.item.roll(1, 0))
    found = []
    for kind in (teacher, wrong):
        term.teacher = kind
        out = learn(term, embeddings(DIM), everyone(), steps=150)
        if method == "ftd":
            student, reference = (torch.cat([x.user, x.item]) for x in (out, teacher))
        else:
            student, reference = out.item, teacher.item
        found.append(similarity(student, reference))
    assert found[0] > 0.7 > 0.4 > found[1]
