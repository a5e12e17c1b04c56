import math

import networkx
import pytest
import torch
from networkx.algorithms import bipartite
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import is_undirected

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.sparse import RowMean

SIZES = (7, 5)  # the last user and the last item are isolated


def events(seed: int, num: int = 30) -> tuple[Interactions, Tensor]:
    """Random pairs, some of them repeated, with weights in [0.1, 1.1)."""
    generator = torch.Generator().manual_seed(seed)
    user, item = (torch.randint(size - 1, (num,), generator=generator) for size in SIZES)
    return Interactions(user, item), torch.rand(num, generator=generator) + 0.1


def graph_of(seed: int, *, weighted: bool = True) -> BipartiteGraph:
    pairs, weight = events(seed)
    return BipartiteGraph.from_interactions(pairs, *SIZES, weight=weight if weighted else None)


def dense_of(pairs: Interactions, weight: Tensor, num_users: int, num_items: int) -> Tensor:
    """The symmetric adjacency of users and items, one pair at a time, the largest weight wins."""
    dense = torch.zeros(num_users + num_items, num_users + num_items, dtype=torch.float64)
    rows = zip(pairs.user.tolist(), pairs.item.tolist(), weight.tolist(), strict=True)
    for user, item, value in rows:
        node = num_users + item
        dense[user, node] = dense[node, user] = max(float(dense[user, node]), value)
    return dense


def normalised(dense: Tensor) -> Tensor:
    """Every entry over the roots of its row's and its column's sum."""
    out = torch.zeros_like(dense)
    for row, column in dense.nonzero().tolist():
        out[row, column] = dense[row, column] / math.sqrt(dense[row].sum() * dense[column].sum())
    return out


def test_the_normalisation_by_hand():
    """User 0 has items 0 and 1, user 1 has item 0: 1/sqrt(2*2), 1/sqrt(2*1), 1/sqrt(1*2)."""
    pairs = Interactions(torch.tensor([0, 1, 0]), torch.tensor([1, 0, 0]))
    graph = BipartiteGraph.from_interactions(pairs, 2, 2)
    half, root = 0.5, 1 / math.sqrt(2)
    expected = torch.tensor(
        [
            [0.0, 0.0, half, root],
            [0.0, 0.0, root, 0.0],
            [half, root, 0.0, 0.0],
            [root, 0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(graph.adjacency.to_dense(), expected)


def test_weights_enter_the_normalisation_by_hand():
    """One user, weights 1 and 3: degrees 4, 1 and 3."""
    pairs = Interactions(torch.tensor([0, 0]), torch.tensor([0, 1]))
    graph = BipartiteGraph.from_interactions(pairs, 1, 2, weight=torch.tensor([1.0, 3.0]))
    assert graph.degree.tolist() == [4.0, 1.0, 3.0]
    row = torch.tensor([0.0, 1 / math.sqrt(4), 3 / math.sqrt(12)])
    torch.testing.assert_close(graph.adjacency.to_dense()[0], row)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_adjacency_equals_a_loop_over_pairs(seed, weighted):
    pairs, weight = events(seed)
    graph = graph_of(seed, weighted=weighted)
    dense = dense_of(pairs, weight if weighted else torch.ones(len(pairs)), *SIZES)
    torch.testing.assert_close(graph.degree.double(), dense.sum(1))
    torch.testing.assert_close(graph.adjacency.to_dense().double(), normalised(dense))


def test_pairs_are_unique_and_sorted():
    graph = graph_of(0)
    keys = graph.user * graph.num_items + graph.item
    assert bool((keys.diff() > 0).all()) and len(keys) < 30


@pytest.mark.parametrize("seed", range(3))
def test_message_passing_equals_the_dense_product_both_ways(seed):
    graph = graph_of(seed)
    dense = normalised(dense_of(*events(seed), *SIZES))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(SIZES), 3, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(sum(SIZES), 3, generator=generator, dtype=torch.float64)
    ours, theirs = graph.propagate(x), dense @ x
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    gradients = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


def test_message_passing_passes_gradcheck():
    x = torch.randn(sum(SIZES), 2, generator=torch.Generator(), dtype=torch.float64)
    assert torch.autograd.gradcheck(graph_of(0).propagate, x.requires_grad_())


def test_message_passing_takes_a_gradient_that_is_not_contiguous():
    graph, x = graph_of(0), torch.ones(sum(SIZES), 2, requires_grad=True)
    (expanded,) = torch.autograd.grad(graph.propagate(x).sum(), x)
    (plain,) = torch.autograd.grad((graph.propagate(x) * torch.ones_like(x)).sum(), x)
    torch.testing.assert_close(expanded, plain)


def test_an_isolated_node_hears_nothing():
    out = graph_of(0).propagate(torch.ones(sum(SIZES), 2))
    assert not out[SIZES[0] - 1].any() and not out[-1].any() and out.isfinite().all()


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_growth_equals_a_rebuilt_graph(seed, decay):
    first, weight = events(seed)
    second, _ = events(seed + 10, 12)
    before = graph_of(seed)
    stored = before.weight.clone()
    grown = before.grow(second, 9, 6, decay=decay)
    weights = torch.cat([weight * decay, torch.ones(len(second))])
    dense = dense_of(Interactions.cat([first, second]), weights, 9, 6)
    torch.testing.assert_close(grown.adjacency.to_dense().double(), normalised(dense))
    assert torch.equal(before.weight, stored) and (grown.num_users, grown.num_items) == (9, 6)


def test_decay_fades_older_pairs_and_a_repeated_one_is_new_again():
    pair = Interactions(torch.tensor([0, 0]), torch.tensor([0, 1]))
    graph = BipartiteGraph.from_interactions(pair, 1, 2)
    for item in (2, 0):
        new = Interactions(torch.tensor([0]), torch.tensor([item]))
        graph = graph.grow(new, 1, 3, decay=0.5)
    assert graph.item.tolist() == [0, 1, 2] and graph.weight.tolist() == [1.0, 0.25, 0.5]


def test_a_graph_does_not_shrink():
    for sizes in ((6, 5), (7, 4)):
        with pytest.raises(ValueError, match=r"7 users and 5 items and cannot shrink to"):
            graph_of(0).grow(Interactions.cat([]), *sizes)


@pytest.mark.parametrize(
    ("name", "user", "item"), [("user", 2, 0), ("item", 0, 3), ("user", -1, 0)]
)
def test_ids_outside_the_graph_are_refused(name, user, item):
    pairs = Interactions(torch.tensor([0, user]), torch.tensor([0, item]))
    with pytest.raises(ValueError, match=f"'{name}' ids run from .* pass the cumulative count"):
        BipartiteGraph.from_interactions(pairs, 2, 3)


def test_a_graph_without_edges_works():
    graph = BipartiteGraph.from_interactions(Interactions.cat([]), 2, 3)
    x = torch.ones(5, 2, requires_grad=True)
    out = graph.propagate(x)
    assert not out.any() and not torch.autograd.grad(out.sum(), x)[0].any()
    assert not graph.sum_over_items(torch.ones(3, 2), graph.weight).any()
    assert graph.edge_index.shape == (2, 0) and graph.degree.tolist() == [0.0] * 5
    assert graph.user_items.degree.tolist() == [0, 0]
    assert graph.item_users.degree.tolist() == [0, 0, 0]
    assert graph.to_data().num_nodes == 5 and graph.to_networkx().number_of_nodes() == 5
    edge = Interactions(torch.tensor([1]), torch.tensor([2]))
    assert graph.grow(edge, 2, 3).degree.tolist() == [0.0, 1.0, 0.0, 0.0, 1.0]


def test_the_edge_index_is_sorted_symmetric_and_has_its_pointers():
    graph = graph_of(1)
    index = graph.edge_index
    assert isinstance(index, EdgeIndex) and index.is_sorted_by_row and index.is_undirected
    index.validate()
    row, column = index.as_tensor()
    keys = row * graph.num_nodes + column
    assert bool((keys.diff() > 0).all())
    assert torch.equal(keys, (column * graph.num_nodes + row).sort().values)
    assert index.sparse_size() == (12, 12)
    (pointer, _), order = index.get_csr()
    assert torch.equal(pointer.diff(), torch.bincount(row, minlength=12)) and order is None
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        product = index.matmul(torch.eye(12), input_value=graph.edge_weight)
    torch.testing.assert_close(product, graph.propagate(torch.eye(12)))


def test_neighbours_of_both_sides_equal_a_loop():
    graph = graph_of(2)
    pairs = set(zip(graph.user.tolist(), graph.item.tolist(), strict=True))
    users, items = graph.user_items, graph.item_users
    for lists, side in ((users, 0), (items, 1)):
        for entity in range(SIZES[side]):
            near = sorted(pair[1 - side] for pair in pairs if pair[side] == entity)
            row = lists.item[lists.indptr[entity] : lists.indptr[entity + 1]]
            assert row.tolist() == near
        assert lists.num_items == SIZES[1 - side]


def test_the_sum_over_items_equals_a_loop_both_ways():
    graph, generator = graph_of(3), torch.Generator().manual_seed(3)
    x = torch.randn(SIZES[1], 2, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.rand(len(graph.user), generator=generator)
    rows = [x.new_zeros(2) for _ in range(SIZES[0])]
    triples = zip(graph.user.tolist(), graph.item.tolist(), weight.double(), strict=True)
    for user, item, value in triples:
        rows[user] = rows[user] + value * x[item]
    expected, out = torch.stack(rows), graph.sum_over_items(x, weight)
    torch.testing.assert_close(out, expected)
    scale = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((y * scale).sum(), x)[0] for y in (out, expected)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(lambda rows: graph.sum_over_items(rows, weight), x)


def test_the_mean_over_rows_equals_a_loop_both_ways():
    lists = UserItems(torch.tensor([0, 2, 2, 5]), torch.tensor([0, 3, 1, 2, 3]), 5)
    x = torch.randn(5, 2, generator=torch.Generator(), dtype=torch.float64).requires_grad_()
    expected = torch.stack([x[[0, 3]].mean(0), x.new_zeros(2), x[[1, 2, 3]].mean(0)])
    torch.testing.assert_close(RowMean(lists)(x), expected, rtol=1e-6, atol=1e-7)
    assert torch.autograd.gradcheck(RowMean(lists), x)


def test_pyg_normalises_the_same_graph_to_the_same_weights():
    graph = graph_of(1)
    data = graph.to_data()
    data.validate()
    assert data.node_type.tolist() == [0] * SIZES[0] + [1] * SIZES[1]
    assert data.has_isolated_nodes() and is_undirected(data.edge_index, data.edge_weight)
    _, weight = gcn_norm(data.edge_index, graph.raw_weight, 12, add_self_loops=False)
    torch.testing.assert_close(data.edge_weight, weight)


def test_the_heterogeneous_graph_has_the_same_edges():
    graph = graph_of(1)
    data = graph.to_hetero()
    data.validate()
    assert data.metadata()[1] == [("user", "rates", "item"), ("item", "rev_rates", "user")]
    one = data.to_homogeneous()
    found = torch.sparse_coo_tensor(one.edge_index, one.edge_weight, (12, 12)).to_dense()
    raw = torch.sparse_coo_tensor(graph.edge_index.as_tensor(), graph.raw_weight, (12, 12))
    torch.testing.assert_close(found, raw.to_dense())


def test_the_networkx_graph_has_the_same_weights():
    graph = graph_of(1)
    twin = graph.to_networkx()
    assert networkx.is_bipartite(twin) and len(twin) == 12
    users = [("user", u) for u in range(SIZES[0])]
    items = [("item", i) for i in range(SIZES[1])]
    found = bipartite.biadjacency_matrix(twin, users, items).toarray()
    dense = dense_of(*events(1), *SIZES)[: SIZES[0], SIZES[0] :]
    torch.testing.assert_close(torch.tensor(found).double(), dense)


def test_moving_takes_edges_and_what_follows_from_them():
    graph = graph_of(0)
    moved = graph.to("meta")
    assert {moved.device.type, moved.weight.device.type, moved.item.device.type} == {"meta"}
    same = graph.to("cpu")
    assert torch.equal(same.edge_index.as_tensor(), graph.edge_index.as_tensor())
    assert torch.equal(same.edge_weight, graph.edge_weight)


def test_what_is_derived_is_made_once():
    graph = graph_of(0)
    for name in ("edge_index", "edge_weight", "adjacency", "user_items", "item_users"):
        assert getattr(graph, name) is getattr(graph, name)


def test_padded_entries_are_the_entries_and_then_rows_beyond_the_users():
    lists = UserItems(torch.tensor([0, 2, 2, 5]), torch.tensor([1, 3, 0, 2, 3]), 4)
    for user in ([2, 0], [1], [0, 1, 2], []):
        users = torch.tensor(user, dtype=torch.int64)
        row, item = lists.entries(users)
        for more in (0, 3):
            padded_row, padded_item = lists.padded_entries(users, len(row) + more)
            assert padded_row.tolist() == row.tolist() + [len(user)] * more
            assert torch.equal(padded_item[: len(item)], item)
    nothing = UserItems(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64), 4)
    assert len(nothing.padded_entries(torch.tensor([0]), 0)[0]) == 0
