import copy
import math

import pytest
import torch
from torch import Tensor

from ccdgraph.continual.lwckd import LWCKD
from ccdgraph.continual.neighbours import Neighbours, similar
from ccdgraph.continual.piw import PIW, ClusterLoss
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets


def random_out(num_users: int, num_items: int, seed: int, dim: int = 4) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    layer = torch.randn(num_users + num_items, dim, generator=generator, dtype=torch.float64)
    return Embeddings(*layer.split([num_users, num_items]), (layer,))


def piw_of(old: Embeddings, **options) -> PIW:
    return PIW(old, generator=torch.Generator().manual_seed(1), **options).double()


def csr(rows: list[set[int]], size: int) -> UserItems:
    owner = torch.tensor([a for a, items in enumerate(rows) for _ in items], dtype=torch.int64)
    item = torch.tensor([i for items in rows for i in sorted(items)], dtype=torch.int64)
    return UserItems.from_interactions([Interactions(owner, item)], len(rows), size)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def naive_weight(piw: PIW, old: Tensor, new: Tensor) -> float:
    """The weight of one user before it is rescaled, from the equations."""
    piw = copy.deepcopy(piw).requires_grad_(False)
    interests = [
        softmax([float(c @ w @ h) for c, w in zip(piw.centre, piw.bilinear, strict=True)])
        for h in (old, new)
    ]
    shift = [(a - b) ** 2 for a, b in zip(*interests, strict=True)]
    hidden = [
        max(0.0, float(piw.bias[j]) + sum(s * float(piw.first[k, j]) for k, s in enumerate(shift)))
        for j in range(len(piw.bias))
    ]
    last = sum(value * float(piw.last[j, 0]) for j, value in enumerate(hidden))
    return math.log1p(math.exp(last))


def test_weights_equal_a_loop_over_the_equations_and_have_mean_one():
    old, out = random_out(6, 9, 0), random_out(8, 10, 2)
    piw = piw_of(old, num_clusters=3, hidden=5)
    with torch.no_grad():
        piw.bias.normal_(generator=torch.Generator().manual_seed(3))
    user = torch.tensor([4, 0, 5, 0])
    weight = piw(out, user)
    raw = [naive_weight(piw, old.user[u], out.user[u]) for u in user.tolist()]
    assert weight.tolist() == pytest.approx([4 * w / sum(raw) for w in raw])
    assert weight.shape == (4,) and float(weight.detach().std()) > 0.01


def test_two_users_by_hand():
    """Two centres 1 and -1 with W = 1; user 0 stays at 0 and user 1 moves from 0 to ln 2.

    Interests move from (1/2, 1/2) to (4/5, 1/5), so every shift is .09; with unit weights the
    network gives .18 to user 1 and 0 to user 0.
    """
    old = Embeddings(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]))
    piw = PIW(old, num_clusters=2, hidden=1)
    with torch.no_grad():
        piw.centre.copy_(torch.tensor([[1.0], [-1.0]]))
        for parameter in (piw.bilinear, piw.first, piw.last):
            parameter.fill_(1.0)
    out = Embeddings(torch.tensor([[0.0], [math.log(2)]]), old.item)
    still, moved = math.log(2), math.log(1 + math.exp(0.18))
    expected = [2 * still / (still + moved), 2 * moved / (still + moved)]
    assert piw(out, torch.arange(2)).tolist() == pytest.approx(expected)


def test_nobody_weighs_more_where_nobody_has_moved():
    old = random_out(5, 6, 0)
    assert piw_of(old)(old, torch.arange(5)).tolist() == pytest.approx([1.0] * 5)


def test_centres_start_at_distinct_old_items_and_are_no_more_than_these():
    old = random_out(5, 6, 0)
    centre = piw_of(old, num_clusters=4).centre.detach()
    assert len({tuple(row) for row in centre.tolist()}) == 4
    assert all((old.item == row).all(1).any() for row in centre)
    assert piw_of(old, num_clusters=50).centre.shape == (6, 4)
    old.item.zero_()
    assert centre.any(), "the centres are a copy"


def test_learnt_weights_lower_the_distillation_loss():
    """With the embeddings fixed, the weights alone learn to count costly users for less.

    A weight that broadcasts against the loss instead of multiplying it cancels to its mean of 1:
    the loss would stay that without weights, as in the released code.
    """
    old, out = random_out(20, 15, 0), random_out(20, 15, 2)
    pairs = Interactions(torch.arange(40) % 20, torch.arange(40) * 7 % 15)
    neighbours = Neighbours.of(BipartiteGraph.from_interactions(pairs, 20, 15))
    batch = Triplets(torch.arange(20), torch.zeros(20, dtype=torch.int64), torch.zeros(20, 1))
    piw = piw_of(old, num_clusters=4)
    term = LWCKD(old, neighbours, weight=piw, temperature=1.0)
    optimizer = torch.optim.Adam(piw.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        term(out, batch).backward()
        optimizer.step()
    plain = LWCKD(old, neighbours, temperature=1.0)(out, batch)
    assert float(term(out, batch).detach()) < 0.9 * float(plain.detach())


def naive_divergence(item: Tensor, centre: Tensor) -> float:
    freedom = max(len(item) - 1, 1)
    kernel = [
        [(1 + float((h - c).square().sum()) / freedom) ** (-(freedom + 1) / 2) for c in centre]
        for h in item
    ]
    q = [[value / sum(row) for value in row] for row in kernel]
    mass = [sum(row[k] for row in q) for k in range(len(centre))]
    p = [[value**2 / mass[k] for k, value in enumerate(row)] for row in q]
    p = [[value / sum(row) for value in row] for row in p]
    cost = [
        sum(a * math.log(a / b) for a, b in zip(*rows, strict=True))
        for rows in zip(p, q, strict=True)
    ]
    return sum(cost) / len(item)


@pytest.mark.parametrize("chosen", [[3], [0, 7], [1, 2, 4, 5, 6, 8]])
def test_the_cluster_loss_equals_a_loop_over_the_equation(chosen):
    out = random_out(3, 9, 0)
    piw = piw_of(random_out(3, 9, 4), num_clusters=3)
    item = torch.tensor(chosen)
    loss = ClusterLoss(piw, item)(out, None).detach()
    assert float(loss) == pytest.approx(naive_divergence(out.item[item], piw.centre.detach()))


def test_only_centres_learn_from_the_cluster_loss():
    """The target P is a constant too, so the gradient is that of the cross-entropy with it."""
    old, out = random_out(3, 9, 0), random_out(3, 9, 1)
    out.item.requires_grad_()
    piw, item = piw_of(old, num_clusters=3), torch.arange(9)
    ClusterLoss(piw, item)(out, None).backward()
    assert out.item.grad is None and piw.centre.grad is not None
    assert all(p.grad is None for name, p in piw.named_parameters() if name != "centre")
    log_q = (
        -4.5 * torch.log1p(torch.cdist(out.item.detach(), piw.centre).square() / 8)
    ).log_softmax(1)
    q = log_q.detach().exp()
    p = q.square() / q.sum(0)
    p = p / p.sum(1, keepdim=True)
    (expected,) = torch.autograd.grad(-(p * log_q).sum() / 9, piw.centre)
    torch.testing.assert_close(piw.centre.grad, expected)


def test_centres_part_the_clusters_of_the_items():
    """Three tight groups, centres close together: in the end each group has a centre of its own.

    Without the square that sharpens P, the centres stay together.
    """
    generator = torch.Generator().manual_seed(0)
    middle = torch.eye(3, 4) * 4
    item = middle.repeat_interleave(10, 0) + 0.1 * torch.randn(30, 4, generator=generator)
    out = Embeddings(torch.zeros(2, 4), item)
    piw = PIW(out, num_clusters=3)
    with torch.no_grad():
        piw.centre.copy_(middle * 0.05)
    optimizer = torch.optim.Adam([piw.centre], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        ClusterLoss(piw, torch.arange(30))(out, None).backward()
        optimizer.step()
    distance = torch.cdist(item, piw.centre.detach())
    share = (-distance.square() / 2).softmax(1)
    own = share[torch.arange(30), torch.arange(3).repeat_interleave(10)]
    assert own.min() > 0.9


def naive_similar(rows: list[set[int]], mean_degree: float) -> list[list[int]]:
    """The definition: try every threshold on the grid."""

    def step(a: int, b: int) -> int:
        both = len(rows[a] & rows[b])
        return int(1000 * both / math.sqrt(len(rows[a]) * len(rows[b]))) if both else 0

    steps = {(a, b): step(a, b) for a in range(len(rows)) for b in range(len(rows)) if a != b}
    wanted = mean_degree * sum(bool(row) for row in rows)
    count = {t: sum(min(s, 900) >= t for s in steps.values()) for t in range(101, 901)}
    threshold = min(count, key=lambda t: (abs(count[t] - wanted), t))
    return [
        [b for b in range(len(rows)) if a != b and min(steps[a, b], 900) >= threshold]
        for a in range(len(rows))
    ]


@pytest.mark.parametrize("budget", [1, 3000, 2**27])
@pytest.mark.parametrize("mean_degree", [0.1, 2.0, 6.0, 1000.0])
def test_similar_entities_equal_a_loop_over_cosines(mean_degree, budget):
    """Rows of 1, 4 or 16 items have exact cosines; two rows are empty, two are the same."""
    generator = torch.Generator().manual_seed(5)
    sizes = [1, 4, 16, 4, 0, 4, 16, 4, 1, 4] * 3
    rows = [set(torch.randperm(24, generator=generator)[:n].tolist()) for n in sizes]
    rows[7] = rows[3]
    lists = similar(csr(rows, 24), mean_degree=mean_degree, budget=budget)
    found = [lists.item[a:b].tolist() for a, b in lists.indptr.unfold(0, 2, 1).tolist()]
    assert found == naive_similar(rows, mean_degree)
    assert lists.num_users == lists.num_items == 30
    assert all(entity not in near for entity, near in enumerate(found))


def test_entities_without_anything_in_common_have_no_neighbours():
    lists = similar(csr([{0}, {1}, set()], 2))
    assert lists.item.numel() == 0 and lists.indptr.tolist() == [0, 0, 0, 0]
