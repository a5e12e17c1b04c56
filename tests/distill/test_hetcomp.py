import math

import pytest
import torch
from planted import double, embeddings, generator, learn, leaves, triplets, user_items

from ccdgraph.distill.hetcomp import HetComp, discrepancy
from ccdgraph.distill.trajectory import Trajectories, observed_lists
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Entities
from ccdgraph.testing import check_term

DIM, M, V, K = 3, 3, 4, 5
PAIRS = [(0, 1), (0, 4), (1, 0), (3, 1), (3, 2), (3, 7), (5, 7), *((2, i) for i in range(8))]
SEEN = user_items(PAIRS)


def trajectories(pairs=PAIRS, users=6, items=8, k=K, checkpoints=V) -> Trajectories:
    seen = user_items(pairs, users, items)
    teachers = [
        [embeddings(4, 10 * m + v, users, items) for v in range(checkpoints)] for m in range(M)
    ]
    return Trajectories.of(teachers, seen, k=k)


def make(**options) -> HetComp:
    options = {"k": K, "compared": 4, "order": 4, **options}
    observed = observed_lists(embeddings(4, 99), SEEN, k=2)
    return HetComp(trajectories(), observed, SEEN, **options)


def finished(**options) -> HetComp:
    term = make(**options)
    term.step = torch.full_like(term.step, V - 1)
    term.targets, term.finished = term._targets(), True
    return term


def naive_discrepancy(own, other):
    gain = [(2 ** math.exp(-t / 10) - 1) / math.log2(t + 2) for t in range(len(own))]
    own = [(i, g) for i, g in zip(own, gain, strict=True) if i >= 0]
    total = sum(g for _, g in own)
    return 1 - sum(g for i, g in own if i in other) / total if own else 0.0


def ranking(scores, listed, rest):
    total = 0
    for place, item in enumerate(listed):
        below = sum(scores[i].exp() for i in listed[place:] + rest)
        total = total - (scores[item].exp() / below).log()
    return total


def naive(term: HetComp, out: Embeddings, users, order=4):
    total = 0
    for u in users:
        scores = out.user[u] @ out.item.T
        listed = [i for i in term.targets[u].tolist() if i >= 0]
        own = [i for i in term.observed[u].tolist() if i >= 0]
        known = {i for owner, i in PAIRS if owner == u}

        def rest(n, listed=listed, known=known):
            return [i for i in range(8) if i not in known and i not in listed[:n]]

        if not term.finished:
            z = sum((scores[i].exp() for i in rest(99)), torch.zeros(()))
            total = total + sum((z / scores[i].exp() + 1).log() for i in listed + own)
            continue
        first = max(order // 5, 1)
        total = total + 0.5 * ranking(scores, own, rest(order))
        total = total + 0.25 * ranking(scores, listed[:order], rest(order))
        total = total + 0.25 * ranking(scores, listed[:first], rest(first))
    return total


@pytest.mark.parametrize("kind", [make, finished])
@pytest.mark.parametrize("users", [[0, 3, 5], [2], range(6)])
def test_both_losses_equal_loops_over_users(kind, users):
    term, out = kind(), leaves(double(embeddings(DIM)))
    loss, expected = term(out, Entities(torch.tensor(users))), naive(term, out, users)
    torch.testing.assert_close(loss, expected)
    leaf = (out.user, out.item)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, leaf))


def test_the_first_loss_by_hand():
    """Scores 1 (observed), 0 (target) and ln 2 (rest): log(1 + 2 / e) + log(1 + 2)."""
    out = Embeddings(torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0], [math.log(2)]]))
    lists = torch.ones(1, 2, 1, 1, dtype=torch.int64)
    seen = user_items([(0, 0)], 1, 3)
    given = Trajectories(lists, torch.ones(1, 2, 1, 1))
    term = HetComp(given, torch.tensor([[0]]), seen, k=1, compared=1)
    expected = math.log(1 + 2 / math.e) + math.log(3)
    assert float(term(out, Entities(torch.tensor([0])))) == pytest.approx(expected)


def test_the_published_normaliser_and_share_of_the_top():
    """Sum of the 50 gains 3.7964627, of which the first ten places are 82 %."""
    own = torch.arange(50).unsqueeze(0)
    first = discrepancy(own, torch.tensor([[[0]]]))
    assert 1 / (1 - float(first)) == pytest.approx(3.7964627, rel=1e-5)
    ten = discrepancy(own, torch.arange(10).view(1, 1, 10))
    assert 1 - float(ten) == pytest.approx(0.82, abs=0.005)


def test_discrepancy_equals_a_loop():
    own = torch.stack([torch.randperm(12, generator=generator(s))[:5] for s in range(7)])
    own[3, 2:] = -1
    own[4] = -1
    lists = torch.stack(
        [
            torch.stack([torch.randperm(12, generator=generator(10 * m + s))[:6] for s in range(7)])
            for m in range(2)
        ]
    )
    lists[0, 5, 1:] = -1
    expected = [
        [naive_discrepancy(own[u].tolist(), lists[m, u].tolist()) for u in range(7)]
        for m in range(2)
    ]
    torch.testing.assert_close(discrepancy(own, lists), torch.tensor(expected))


def test_construction_equals_a_loop_over_users_and_teachers():
    """A world large enough for users to move at different times."""
    given = trajectories([(0, 1)], 40, 30, 12)
    seen = user_items([(0, 1)], 40, 30)
    term = HetComp(given, torch.full((40, 1), -1), seen, k=10, compared=8, alpha=1.1)
    step, before, moved = [[0] * 40 for _ in range(M)], None, set()
    for epoch in range(10, 200, 10):
        out = embeddings(DIM, epoch, 40, 30)
        term.epoch = epoch
        term.construct(out)
        scores = out.user @ out.item.T
        scores[0, 1] = float("-inf")
        own = scores.topk(8).indices.tolist()

        def to(m, u, v, own=own):
            return naive_discrepancy(own[u], given.lists[m, min(v, V - 1), u, :8].tolist())

        if before is None:
            before = [[to(m, u, 1) for u in range(40)] for m in range(M)]
        else:
            threshold = 1.1 * 0.995 ** (epoch // 10)
            for m in range(M):
                for u in range(40):
                    if step[m][u] < V - 1:
                        now = to(m, u, step[m][u] + 1)
                        ratio = before[m][u] / now if now > 0 else math.inf
                        if ratio > threshold or ratio < 1:
                            before[m][u] = to(m, u, step[m][u] + 2)
                            step[m][u] += 1
                            moved.add((m, u, epoch))
        assert term.step.tolist() == step
        torch.testing.assert_close(term.before, torch.tensor(before))
        assert term.finished == all(v == V - 1 for row in step for v in row)
    assert term.finished and len({epoch for _, _, epoch in moved}) > 3


def test_the_consensus_follows_each_users_checkpoints():
    term = make()
    term.step = torch.randint(0, V, (M, 6), generator=generator())
    lists, found = term.trajectories.lists, term._targets()
    for u in range(6):
        total = {}
        for m in range(M):
            for r, item in enumerate(lists[m, int(term.step[m, u]), u].tolist()):
                if item >= 0:
                    total[item] = total.get(item, 0) + math.exp(-r / 10)
        best = sorted(total, key=lambda i, total=total: (-total[i], i))[:K]
        assert found[u].tolist() == best + [-1] * (K - len(best))


def test_construction_follows_the_schedule():
    term, out, seen = make(every=3).train(), leaves(embeddings(DIM)), []
    for epoch in range(8):
        term.begin_epoch(epoch)
        for _ in range(2):
            term(out, triplets())
        seen.append((term.before is None, int(term.step.sum())))
    idle = (V - 1) * M  # the user who has seen everything
    assert [none for none, _ in seen] == [True] * 3 + [False] * 5
    assert [n for _, n in seen[:6]] == [idle] * 6 and seen[6][1] > idle
    term.eval().begin_epoch(9)
    before = term.step.clone()
    term(out, triplets())
    assert torch.equal(term.step, before)


def test_without_a_curriculum_everyone_starts_at_the_end():
    """The loss of a term whose users have all arrived, and no construction ever."""
    term, out = make(curriculum=False).train(), leaves(embeddings(DIM))
    torch.testing.assert_close(term(out, triplets()), finished()(out, triplets()))
    term.begin_epoch(10)
    term(out, triplets())
    assert term.before is None and int(term.step.min()) == V - 1


def test_the_second_loss_waits_for_every_user():
    term = make()
    steps = 0
    while not term.finished:
        assert int(term.step.min()) < V - 1
        term.epoch = 10 * steps
        term.construct(embeddings(DIM, steps))
        steps += 1
    assert int(term.step.min()) == V - 1 and 4 <= steps < 40


def test_observed_items_are_in_the_teachers_order():
    teacher = embeddings(4, 99)
    lists = observed_lists(teacher, SEEN, k=3, budget=1)
    scores = teacher.user @ teacher.item.T
    for u in range(6):
        own = sorted((i for owner, i in PAIRS if owner == u), key=lambda i, u=u: -scores[u, i])[:3]
        assert lists[u].tolist() == own + [-1] * (3 - len(own))


@pytest.mark.parametrize("kind", [make, finished])
def test_contract(kind):
    check_term(kind(), embeddings(DIM), triplets())


@pytest.mark.parametrize("kind", [make, finished])
def test_a_user_without_unseen_items_has_observed_items_alone(kind):
    """Nothing is below them in the first loss; the second ranks the two of them."""
    out, term = leaves(embeddings(DIM)), kind()
    loss = term(out, Entities(torch.tensor([2])))
    grads = torch.autograd.grad(loss, (out.user, out.item))
    assert all(g.isfinite().all() for g in grads)
    assert (loss > 0) == term.finished


def test_bad_input_is_refused():
    given, observed = trajectories(), observed_lists(embeddings(4, 99), SEEN, k=2)
    with pytest.raises(ValueError, match="two checkpoints or more"):
        HetComp(trajectories(checkpoints=1), observed, SEEN, k=K, compared=4)
    with pytest.raises(
        ValueError, match="'trajectories' has 5 entries a row, expected at least 100"
    ):
        HetComp(given, observed, SEEN)
    with pytest.raises(ValueError, match=r"'observed' has shape \(5, 2\)"):
        HetComp(given, observed[:5], SEEN, k=K, compared=4)
    weight = given.weight.clone()
    weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite weight"):
        HetComp(Trajectories(given.lists, weight), observed, SEEN, k=K, compared=4)
    with pytest.raises(ValueError, match="student has 6 and 9"):
        make()(embeddings(DIM, items=9), triplets())
    with pytest.raises(ValueError, match="different numbers of checkpoints"):
        Trajectories.of([[embeddings(4)], [embeddings(4), embeddings(4)]], SEEN, k=2)
    for value, message in ((float("nan"), "NaN"), (float("inf"), "infinite|NaN")):
        broken = embeddings(4)
        broken.item[6, 0] = value
        with pytest.raises(ValueError, match=message):
            Trajectories.of([[broken, broken]], SEEN, k=2)


def agreement(out: Embeddings, lists, rows):
    """Share of pairs of listed items in the order of the list."""
    scores = out.pairs(torch.tensor(rows).unsqueeze(1), lists[rows])
    higher = scores.unsqueeze(2) > scores.unsqueeze(1)
    return float(higher[:, torch.ones(K, K).triu(1).bool()].float().mean())


def test_the_student_ends_at_the_order_of_the_last_checkpoints():
    """Staying with the first loss, or with the first checkpoints, fails."""
    users, rows = Entities(torch.tensor([0, 1, 4, 5])), [0, 1, 4, 5]
    goal, found = finished().targets, []
    for term in (make(every=2, order=5), make(every=1000), finished(order=5)):
        out = learn(term, embeddings(5, 2), users, steps=300)
        found.append(agreement(out, goal, rows))
    assert min(found[0], found[2]) > 0.9 > 0.8 > found[1]
