import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GAT, GCN, GATConv, GCNConv, GraphSAGE, SAGEConv

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import GNN

USERS, ITEMS, WIDTH = 6, 5, 4
NODES = USERS + ITEMS


def graph_of(*, weighted: bool = False) -> BipartiteGraph:
    """Random pairs; the last user and the last item are isolated."""
    generator = torch.Generator().manual_seed(0)
    user, item = (torch.randint(n - 1, (14,), generator=generator) for n in (USERS, ITEMS))
    weight = torch.rand(14, generator=generator) + 0.1 if weighted else None
    return BipartiteGraph.from_interactions(Interactions(user, item), USERS, ITEMS, weight=weight)


def model_of(module: type[nn.Module], **options: object) -> GNN:
    generator = torch.Generator().manual_seed(1)
    return GNN(USERS, ITEMS, WIDTH, module=module, std=1.0, generator=generator, **options).eval()


def table(model: GNN) -> Tensor:
    return torch.cat([model.user, model.item])


def served(model: GNN, graph: BipartiteGraph) -> Tensor:
    out = model(graph)
    return torch.cat([out.user, out.item])


def adjacency(graph: BipartiteGraph) -> Tensor:
    out = torch.zeros(NODES, NODES)
    triples = zip(graph.user.tolist(), graph.item.tolist(), graph.weight.tolist(), strict=True)
    for user, item, weight in triples:
        out[user, USERS + item] = out[USERS + item, user] = weight
    return out


@pytest.mark.parametrize("weighted", [False, True])
def test_graph_convolution_equals_the_dense_product_with_raw_weights(weighted):
    """Fails when the weights are normalised twice, or when they are dropped."""
    graph, model = graph_of(weighted=weighted), model_of(GCNConv)
    dense = adjacency(graph) + torch.eye(NODES)
    root = dense.sum(1).rsqrt()
    expected = root[:, None] * dense * root @ table(model) @ model.module.lin.weight.T
    torch.testing.assert_close(served(model, graph), expected + model.module.bias)


def test_mean_aggregation_equals_a_loop_over_neighbours():
    graph, model = graph_of(weighted=True), model_of(SAGEConv)
    x, module, near = table(model), model.module, adjacency(graph) > 0
    rows = []
    for node in range(NODES):
        mean = x[near[node]].mean(0) if near[node].any() else torch.zeros(WIDTH)
        rows.append(module.lin_l(mean) + module.lin_r(x[node]))
    torch.testing.assert_close(served(model, graph), torch.stack(rows))


def test_attention_equals_a_loop_over_neighbours():
    graph, model = graph_of(weighted=True), model_of(GATConv)
    module, near = model.module, (adjacency(graph) > 0) | torch.eye(NODES, dtype=torch.bool)
    x = table(model) @ module.lin.weight.T
    source, target = x @ module.att_src.flatten(), x @ module.att_dst.flatten()
    rows = []
    for node in range(NODES):
        logits = functional.leaky_relu(source[near[node]] + target[node], 0.2)
        rows.append(logits.softmax(0) @ x[near[node]] + module.bias)
    torch.testing.assert_close(served(model, graph), torch.stack(rows))


@pytest.mark.parametrize(("module", "weighted"), [(GraphSAGE, False), (GAT, False), (GCN, True)])
def test_a_model_of_pyg_gives_what_it_gives_alone(module, weighted):
    graph, model = graph_of(weighted=True), model_of(module, num_layers=2)
    assert model.weighted == weighted
    edge_index = graph.edge_index.as_tensor()
    weight = {"edge_weight": graph.raw_weight} if weighted else {}
    torch.testing.assert_close(
        served(model, graph), model.module(table(model), edge_index, **weight)
    )


@pytest.mark.parametrize("module", [GraphSAGE, GAT, GCN])
def test_the_generator_alone_decides_all_initial_values(module):
    state = torch.get_rng_state()
    first, second = (model_of(module, num_layers=2).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())
    other = GNN(USERS, ITEMS, WIDTH, module=module, num_layers=2, generator=torch.Generator())
    differs = [name for name in first if not torch.equal(first[name], other.state_dict()[name])]
    assert any(name.startswith("module.") for name in differs)


def test_tables_do_not_depend_on_the_module():
    """Another architecture starts from the same tables, so comparisons are paired."""
    first, second = model_of(GCN, num_layers=1), model_of(GraphSAGE, num_layers=3)
    assert torch.equal(first.user, second.user) and torch.equal(first.item, second.item)


def test_options_go_to_the_module_and_may_change_its_widths():
    model = model_of(GraphSAGE, num_layers=3, hidden_channels=7, out_channels=2)
    assert repr(model.module) == "GraphSAGE(4, 2, num_layers=3)"
    assert model.module.convs[0].out_channels == 7
    assert served(model, graph_of()).shape == (NODES, 2)


class Plain(nn.Module):
    """No widths in the signature, no weights in ``forward``."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x.index_add(0, edge_index[1], x[edge_index[0]])


def test_any_module_of_that_signature_will_do():
    graph, model = graph_of(), model_of(Plain)
    x = table(model)
    torch.testing.assert_close(served(model, graph), x + adjacency(graph) @ x)
