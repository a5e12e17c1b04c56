import pytest
import torch
from torch_geometric.nn import GAT, GraphConv, GraphSAGE

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.subgraph import Subgraph, neighbourhood
from ccdgraph.nn import GNN, MF, Backbone, LightGCN, MultVAE

USERS, ITEMS = 12, 9
ASKED = torch.tensor([4, 0, 4, 11]), torch.tensor([8, 3])  # user 11 and item 8 are isolated


def graph_of(seed: int = 0, num: int = 60) -> BipartiteGraph:
    generator = torch.Generator().manual_seed(seed)
    user, item = (torch.randint(n - 1, (num,), generator=generator) for n in (USERS, ITEMS))
    weight = torch.rand(num, generator=generator) + 0.1
    return BipartiteGraph.from_interactions(Interactions(user, item), USERS, ITEMS, weight=weight)


def near(graph: BipartiteGraph, fanout: list[int], seed: int = 0) -> Subgraph:
    return neighbourhood(graph, *ASKED, fanout, generator=torch.Generator().manual_seed(seed))


def model_of(kind: str) -> Backbone:
    sizes, generator = (USERS, ITEMS, 6), torch.Generator().manual_seed(3)
    if kind == "MF":
        return MF(*sizes, std=1.0, generator=generator)
    if kind == "LightGCN":
        return LightGCN(*sizes, num_layers=3, std=1.0, generator=generator)
    module = {"GraphSAGE": GraphSAGE, "GAT": GAT, "GraphConv": GraphConv}[kind]
    options = {} if kind == "GraphConv" else {"num_layers": 2}
    return GNN(*sizes, module=module, std=1.0, generator=generator, **options)


@pytest.mark.parametrize("kind", ["MF", "LightGCN", "GraphSAGE", "GAT", "GraphConv"])
@pytest.mark.parametrize("most", [-1, 100])
def test_with_every_neighbour_outputs_and_gradients_are_those_of_the_whole_graph(kind, most):
    graph, model = graph_of(), model_of(kind)
    whole, part = model(graph), model(near(graph, [most] * 3))
    theirs = torch.cat([whole.user[ASKED[0]], whole.item[ASKED[1]]])
    ours = torch.cat([part.user_rows(ASKED[0]), part.item_rows(ASKED[1])])
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    parameters = list(model.parameters())
    gradients = [torch.autograd.grad((x * weight).sum(), parameters) for x in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_layers_are_those_of_the_users_and_items_asked_for():
    graph, model = graph_of(), model_of("LightGCN")
    part, whole = model(near(graph, [-1] * 3)), model(graph)
    rows = torch.tensor([0, 4, 11, USERS + 3, USERS + 8])
    for ours, theirs in zip(part.layers, whole.layers, strict=True):
        torch.testing.assert_close(ours, theirs[rows])


def test_a_draw_takes_neighbours_without_repetition():
    graph = graph_of()
    full = {u: set(graph.item[graph.user == u].tolist()) for u in range(USERS)}
    for seed in range(50):
        part = near(graph, [3], seed)
        for place, user in enumerate(part.user[: part.num_asked[0]].tolist()):
            edges = slice(*part.indptr[place : place + 2].tolist())
            items = part.item[part.neighbour[edges] - part.num_users].tolist()
            assert set(items) <= full[user]
            assert len(items) == len(set(items)) == min(3, len(full[user]))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_every_neighbour_is_drawn_with_the_same_chance(most):
    """Twelve thousand rows of five neighbours, three standard errors of a binomial count."""
    num, degree = 12_000, 5
    user = torch.arange(num).repeat_interleave(degree)
    pairs = Interactions(user, torch.arange(degree).repeat(num))
    graph = BipartiteGraph.from_interactions(pairs, num, degree)
    nobody, generator = torch.empty(0, dtype=torch.int64), torch.Generator().manual_seed(0)
    part = neighbourhood(graph, torch.arange(num), nobody, [most], generator=generator)
    count = torch.bincount(part.item[part.neighbour - part.num_users], minlength=degree)
    chance = most / degree
    assert (count - num * chance).abs().max() < 3 * (num * chance * (1 - chance)) ** 0.5
    torch.testing.assert_close(part.raw_weight, torch.full((num * most,), 1 / chance))


@pytest.mark.parametrize("fanout", [[1, 1, 1], [2, 1, 3]])
def test_the_mean_of_many_draws_is_the_whole_output(fanout):
    """Within 4 standard errors in every entry, after three rounds.

    Fails when weights are not divided by the chance of the draw, and when a node that comes back
    after two rounds keeps its draws (walks there and back are then counted too often).
    """
    graph, model = graph_of(num=40), model_of("LightGCN")
    whole = model(graph)
    expected = torch.cat([whole.user[ASKED[0]], whole.item[ASKED[1]]]).detach()
    draws = []
    for seed in range(3000):
        part = model(near(graph, fanout, seed))
        draws.append(torch.cat([part.user_rows(ASKED[0]), part.item_rows(ASKED[1])]).detach())
    values = torch.stack(draws).double()
    error = values.std(0) / len(values) ** 0.5
    assert ((values.mean(0) - expected).abs() <= 4 * error + 1e-6).all()
    assert error.max() > 1e-3, "draws differ"


def test_no_round_leaves_the_rows_alone():
    part = near(graph_of(), [])
    assert part.user.tolist() == [0, 4, 11] and part.item.tolist() == [3, 8]
    assert part.neighbour.numel() == 0 and part.indptr.tolist() == [0] * 6
    model = model_of("MF")
    torch.testing.assert_close(model(part).user, model.user[[0, 4, 11]])


def test_the_same_generator_gives_the_same_subgraph():
    graph = graph_of()
    one, same, other = near(graph, [2, 2], 5), near(graph, [2, 2], 5), near(graph, [2, 2], 6)
    assert one.neighbour.equal(same.neighbour) and one.edge_weight.equal(same.edge_weight)
    assert not (one.neighbour.shape == other.neighbour.shape and one.item.equal(other.item))


def test_a_subgraph_is_no_catalogue():
    with pytest.raises(ValueError, match="embed the whole graph"):
        model_of("MF")(near(graph_of(), [])).scores(torch.tensor([0]))
    model = MultVAE(USERS, ITEMS, 4, generator=torch.Generator())
    with pytest.raises(ValueError, match="'fanout' to none"):
        model(near(graph_of(), [-1]))
