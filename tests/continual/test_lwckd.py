import math

import pytest
import torch
from torch import Tensor

from ccdgraph.continual.lwckd import LWCKD, _LogPartitions, _tensor_cores
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.piw import PIW, ClusterLoss
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.sparse import RowMean
from ccdgraph.nn import Embeddings
from ccdgraph.sampling import Triplets

OLD, NOW, LAYERS, DIM = (7, 6), (9, 8), 3, 4
KINDS = {"user_item": (0, 1), "item_user": (1, 0), "user_user": (0, 0), "item_item": (1, 1)}
Lists = dict[str, list[set[int]]]


def csr(lists: list[set[int]], size: int) -> UserItems:
    row = torch.tensor([a for a, near in enumerate(lists) for _ in near], dtype=torch.int64)
    column = torch.tensor([c for near in lists for c in sorted(near)], dtype=torch.int64)
    return UserItems.from_interactions([Interactions(row, column)], len(lists), size)


def random_lists(seed: int) -> Lists:
    """Old neighbours of every kind; the first two entities of each kind have none."""
    generator = torch.Generator().manual_seed(seed)
    hit = {k: torch.rand(OLD[a], OLD[c], generator=generator) < 0.5 for k, (a, c) in KINDS.items()}
    for rows in hit.values():
        rows[:2] = False
    return {k: [set(row.nonzero().flatten().tolist()) for row in hit[k]] for k in KINDS}


def neighbours_of(lists: Lists) -> Neighbours:
    return Neighbours(**{k: RowMean(csr(lists[k], OLD[c])) for k, (_, c) in KINDS.items()})


def embeddings(
    sizes: tuple[int, int], seed: int, *, dtype: torch.dtype = torch.float64, scale: float = 1.0
) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    layers = tuple(
        (torch.randn(sum(sizes), DIM, generator=generator, dtype=dtype) * scale).requires_grad_()
        for _ in range(LAYERS)
    )
    user, item = torch.stack(layers).mean(0).split(list(sizes))
    return Embeddings(user, item, layers)


def batch_of(user: list[int], item: list[int]) -> Triplets:
    negative = torch.zeros(len(user), 1, dtype=torch.int64)
    return Triplets(torch.tensor(user), torch.tensor(item), negative)


BATCH = batch_of([0, 2, 8, 3, 3, 6, 7, 5], [5, 7, 2, 2, 4, 0, 3, 6])


def naive(
    old: Embeddings,
    out: Embeddings,
    batch: Triplets,
    lists: Lists,
    temperature=5.0,
    weight=None,
    drawn=None,
) -> Tensor:
    """The equation, an anchor and a neighbour at a time; ``weight`` by place among old users.

    Of the users and items in ``drawn`` each counts as often as its share among all says.
    """
    drawn = drawn or [range(size) for size in OLD]
    users = [int(u) for u in batch.user if u < OLD[0]]
    items = [int(i) for i in batch.positive if i < OLD[1]]
    total = out.user.new_zeros(())
    for before, after in zip(old.layers, out.layers, strict=True):
        tables = (before[: OLD[0]], before[OLD[0] :]), (after[: NOW[0]], after[NOW[0] :])
        for kind, (of, among) in KINDS.items():
            terms = []
            for place, anchor in enumerate(items if of else users):
                near = lists[kind][anchor]
                if not near:
                    continue
                own, others = tables[0][of][anchor], tables[1][among]
                score = [own @ others[c] / temperature for c in range(OLD[among])]
                share = len(drawn[among]) / OLD[among]
                every = (sum(score[c].exp() for c in drawn[among]) / share).log()
                cost = every - sum(score[c] for c in near) / len(near)
                terms.append(cost if weight is None or of else cost * weight[place])
            if terms:
                total = total + sum(terms) / len(terms)
    return total / LAYERS


def only(lists: Lists, *kinds: str) -> Lists:
    return {kind: near if kind in kinds else [set()] * len(near) for kind, near in lists.items()}


def close(actual: Tensor, expected: Tensor) -> None:
    """Row means hold float32 weights, so equal to their precision."""
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("temperature", [5.0, 0.5])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), tuple(KINDS)])
def test_value_and_gradient_equal_a_loop_over_the_equation(kinds, temperature):
    """The batch holds new users and items, repeated anchors, and anchors without a neighbour."""
    old, out, lists = embeddings(OLD, 0), embeddings(NOW, 1), only(random_lists(2), *kinds)
    loss = LWCKD(old, neighbours_of(lists), temperature=temperature)(out, BATCH)
    expected = naive(old, out, BATCH, lists, temperature)
    assert expected > 0.1
    close(loss, expected)
    gradients = torch.autograd.grad(loss, out.layers)
    for actual, wanted in zip(gradients, torch.autograd.grad(expected, out.layers), strict=True):
        close(actual, wanted)


@pytest.mark.parametrize("num_drawn", [1, 4, 20])
def test_drawn_entities_stand_for_all(num_drawn):
    """With repetition, others in every step."""
    old, out, lists = embeddings(OLD, 0), embeddings(NOW, 1), random_lists(2)
    draw, same = (torch.Generator().manual_seed(0) for _ in range(2))
    weight = PIW(old, num_clusters=3).double()
    term = LWCKD(old, neighbours_of(lists), weight=weight, num_drawn=num_drawn, generator=draw)
    user = torch.tensor([u for u in BATCH.user.tolist() if u < OLD[0]])
    for _ in range(3):
        drawn = [torch.randint(size, (num_drawn,), generator=same).tolist() for size in OLD]
        loss = term(out, BATCH)
        expected = naive(old, out, BATCH, lists, weight=weight(out, user), drawn=drawn)
        close(loss, expected)
        ours, theirs = (torch.autograd.grad(x, out.layers) for x in (loss, expected))
        for actual, wanted in zip(ours, theirs, strict=True):
            close(actual, wanted)


def test_without_a_mean_degree_nobody_is_compared():
    pairs = Interactions(torch.arange(40) % 7, torch.arange(40) % 6)
    graph = BipartiteGraph.from_interactions(pairs, *OLD)
    near, whole = Neighbours.of(graph, mean_degree=0.0), Neighbours.of(graph)
    assert near.user_user.lists.item.numel() == near.item_item.lists.item.numel() == 0
    assert near.user_item.lists.item.equal(whole.user_item.lists.item)
    old, out = embeddings(OLD, 0, dtype=torch.float32), embeddings(NOW, 1, dtype=torch.float32)
    lists = {
        "user_item": [set(graph.item[graph.user == u].tolist()) for u in range(OLD[0])],
        "item_user": [set(graph.user[graph.item == i].tolist()) for i in range(OLD[1])],
        "user_user": [set()] * OLD[0],
        "item_item": [set()] * OLD[1],
    }
    torch.testing.assert_close(LWCKD(old, near)(out, BATCH), naive(old, out, BATCH, lists))


def test_one_anchor_by_hand():
    """Anchor 2, T = 2: products 4 and -2 with items of which the first is the old neighbour."""
    old = Embeddings(torch.tensor([[2.0]]), torch.zeros(2, 1), (torch.tensor([[2.0], [0], [0]]),))
    layer = torch.tensor([[0.0], [4.0], [-2.0]])
    out = Embeddings(layer[:1], layer[1:], (layer,))
    lists = [csr([{0}], 2), csr([set(), set()], 1), csr([set()], 1), csr([set(), set()], 2)]
    term = LWCKD(old, Neighbours(*map(RowMean, lists)), temperature=2.0)
    expected = math.log(math.exp(4) + math.exp(-2)) - 4
    assert float(term(out, batch_of([0], [1]))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_every_layer_counts_the_deepest_too(layer):
    old, out, lists = embeddings(OLD, 0), embeddings(NOW, 1), random_lists(2)
    term = LWCKD(old, neighbours_of(lists))
    gradient = torch.autograd.grad(term(out, BATCH), out.layers[layer])[0]
    assert (gradient[: OLD[0]] != 0).any() and (gradient[NOW[0] : NOW[0] + OLD[1]] != 0).any()


def test_new_entities_are_neither_anchors_nor_candidates():
    old, out, lists = embeddings(OLD, 0), embeddings(NOW, 1), random_lists(2)
    term = LWCKD(old, neighbours_of(lists))
    new = torch.tensor([7, 8, NOW[0] + 6, NOW[0] + 7])
    for gradient in torch.autograd.grad(term(out, BATCH), out.layers):
        assert not gradient[new].any()
    nobody = batch_of([7, 8], [6, 7])
    for weight in (None, PIW(old, generator=torch.Generator().manual_seed(0)).double()):
        loss = LWCKD(old, neighbours_of(lists), weight=weight)(out, nobody)
        assert loss.detach() == 0
        assert all(not g.any() for g in torch.autograd.grad(loss, out.layers))


def test_personal_weights_multiply_the_terms_of_users_and_no_others():
    old, out, lists = embeddings(OLD, 0), embeddings(NOW, 1), random_lists(2)
    weight = PIW(old, num_clusters=3, generator=torch.Generator().manual_seed(3)).double()
    user = BATCH.user[BATCH.user < OLD[0]]
    for kinds in (("user_item",), ("user_user",), ("item_user", "item_item"), tuple(KINDS)):
        some = only(lists, *kinds)
        loss = LWCKD(old, neighbours_of(some), weight=weight)(out, BATCH)
        close(loss, naive(old, out, BATCH, some, weight=weight(out, user)))
        plain = LWCKD(old, neighbours_of(some))(out, BATCH)
        assert torch.allclose(loss, plain) == (kinds[0] == "item_user")


def test_gradcheck():
    old, out = embeddings(OLD, 0), embeddings(NOW, 1)
    weight = PIW(old, num_clusters=2, hidden=3, generator=torch.Generator().manual_seed(3)).double()
    term = LWCKD(old, neighbours_of(random_lists(2)), weight=weight)
    with torch.no_grad():
        weight.bias.fill_(1.0)  # away from the kink of the rectifier
    inputs = tuple(x.detach().requires_grad_() for x in (out.user, out.item, *out.layers))
    assert torch.autograd.gradcheck(
        lambda user, item, *more: term(Embeddings(user, item, more[:LAYERS]), BATCH),
        (*inputs, *weight.parameters()),
    )


def test_nothing_of_the_old_model_learns():
    old, out = embeddings(OLD, 0), embeddings(NOW, 1)
    weight = PIW(old, generator=torch.Generator().manual_seed(3)).double()
    term = LWCKD(old, neighbours_of(random_lists(2)), weight=weight)
    loss = term(out, BATCH) + ClusterLoss(weight, torch.arange(8))(out, None)
    loss.backward()
    assert all(layer.grad is None for layer in old.layers)
    names = {name for name, _ in term.named_parameters()}
    assert names == {f"weight.{n}" for n in ("centre", "bilinear", "first", "last", "bias")}


def test_scores_of_a_thousand_stay_finite():
    old, out = embeddings(OLD, 0, scale=30.0), embeddings(NOW, 1, scale=300.0)
    loss = LWCKD(old, neighbours_of(random_lists(2)))(out, BATCH)
    assert loss.isfinite() and loss.detach() > 1e3
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, out.layers))


def test_old_neighbours_come_first_again():
    """Descending the loss from random embeddings ranks every old neighbour above all others.

    With the anchors or the neighbours of other entities, or the sign turned, some stay below.
    """
    pairs = Interactions(torch.arange(8).repeat_interleave(2), torch.arange(16) % 8)
    graph = BipartiteGraph.from_interactions(pairs, 8, 8)
    table = torch.eye(16) * 5
    old = Embeddings(table[:8], table[8:], (table,))
    layer = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    near = Neighbours.of(graph, mean_degree=2.0)
    term = LWCKD(old, near, temperature=1.0)
    optimizer = torch.optim.Adam([layer], lr=0.1)
    for _ in range(150):
        out = Embeddings(layer[:8], layer[8:], (layer,))
        optimizer.zero_grad()
        term(out, batch_of(list(range(8)), list(range(8)))).backward()
        optimizer.step()
    for kind, (of, among) in KINDS.items():
        lists = getattr(near, kind).lists
        score = table.split(8)[of] @ layer.detach().split(8)[among].T
        for anchor in range(8):
            real = lists.item[lists.indptr[anchor] : lists.indptr[anchor + 1]]
            others = [c for c in range(8) if c not in real.tolist()]
            assert len(real) and score[anchor, real].min() > score[anchor, others].max()


@pytest.mark.parametrize("before", ["highest", "high"])
def test_the_setting_of_products_is_put_back(before):
    products, setting = torch.backends.cuda.matmul, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with pytest.raises(ZeroDivisionError), _tensor_cores():
            assert getattr(products, "fp32_precision", "tf32") == "tf32"
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == before
        assert products.allow_tf32 == (before == "high")
    finally:
        torch.set_float32_matmul_precision(setting)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="tensor cores need a CUDA device")
def test_tensor_cores_change_little():
    found = []
    for device in ("cpu", "cuda"):
        draw = torch.Generator().manual_seed(0)
        anchor, entities = (torch.randn(n, 64, generator=draw) for n in (40, 500))
        weight = torch.rand(40, 2, generator=draw).to(device)
        entities = entities.to(device).requires_grad_()
        loss = _LogPartitions.apply(anchor.to(device) / 5, entities, weight, 200)
        (gradient,) = torch.autograd.grad(loss, entities)
        found.append((loss.detach().cpu(), gradient.cpu()))
    for cpu, cuda in zip(*found, strict=True):
        assert (cuda - cpu).norm() < 1e-3 * cpu.norm()
