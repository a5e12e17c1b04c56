import pytest
import torch
from torch import Tensor
from torch_geometric.nn.models import LightGCN as Reference

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import LightGCN

USERS, ITEMS, WIDTH = 12, 9, 5


def graph_of(seed: int) -> BipartiteGraph:
    """Random pairs with repetitions; the last user and the last item are isolated."""
    generator = torch.Generator().manual_seed(seed)
    user, item = (torch.randint(n - 1, (45,), generator=generator) for n in (USERS, ITEMS))
    return BipartiteGraph.from_interactions(Interactions(user, item), USERS, ITEMS)


def model_of(num_layers: int, seed: int = 0) -> LightGCN:
    generator = torch.Generator().manual_seed(seed)
    return LightGCN(USERS, ITEMS, WIDTH, num_layers=num_layers, std=1.0, generator=generator)


def dense(graph: BipartiteGraph) -> Tensor:
    """D^-1/2 A D^-1/2, one entry at a time."""
    size = USERS + ITEMS
    adjacency = torch.zeros(size, size)
    for user, item in zip(graph.user.tolist(), graph.item.tolist(), strict=True):
        adjacency[user, USERS + item] = adjacency[USERS + item, user] = 1.0
    degree = adjacency.sum(1)
    out = torch.zeros_like(adjacency)
    for row, column in adjacency.nonzero().tolist():
        out[row, column] = (degree[row] * degree[column]) ** -0.5
    return out


@pytest.mark.parametrize("num_layers", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(2))
def test_the_output_is_the_mean_of_the_powers_of_the_adjacency(seed, num_layers):
    graph, model = graph_of(seed), model_of(num_layers)
    matrix, x = dense(graph), torch.cat([model.user, model.item])
    powers = [torch.linalg.matrix_power(matrix, k) @ x for k in range(num_layers + 1)]
    out = model(graph)
    mean = torch.stack(powers).mean(0)
    torch.testing.assert_close(torch.cat([out.user, out.item]), mean, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(out.layers, powers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_values_and_gradients_equal_those_of_pyg(num_layers):
    graph, model = graph_of(3), model_of(num_layers)
    reference = Reference(USERS + ITEMS, WIDTH, num_layers)
    with torch.no_grad():
        reference.embedding.weight.copy_(torch.cat([model.user, model.item]))
    out = model(graph)
    ours = torch.cat([out.user, out.item])
    theirs = reference.get_embedding(graph.edge_index.as_tensor())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weight = torch.randn(ours.shape, generator=torch.Generator())
    gradients = torch.autograd.grad((ours * weight).sum(), [model.user, model.item])
    (expected,) = torch.autograd.grad((theirs * weight).sum(), reference.embedding.weight)
    torch.testing.assert_close(torch.cat(gradients), expected, rtol=1e-5, atol=1e-5)


def test_scores_equal_those_of_pyg():
    graph, model = graph_of(4), model_of(2)
    reference = Reference(USERS + ITEMS, WIDTH, 2)
    with torch.no_grad():
        reference.embedding.weight.copy_(torch.cat([model.user, model.item]))
    pairs = torch.cartesian_prod(torch.arange(USERS), USERS + torch.arange(ITEMS)).T
    scores = reference(graph.edge_index.as_tensor(), pairs).view(USERS, ITEMS)
    torch.testing.assert_close(
        model(graph).scores(torch.arange(USERS)), scores, rtol=1e-5, atol=1e-5
    )


def test_an_isolated_node_keeps_its_share_of_the_table():
    model = model_of(2)
    out = model(graph_of(0))
    torch.testing.assert_close(out.user[-1], model.user[-1] / 3)
    torch.testing.assert_close(out.item[-1], model.item[-1] / 3)


def test_tables_are_all_it_learns():
    assert {name for name, _ in model_of(3).named_parameters()} == {"user", "item"}
