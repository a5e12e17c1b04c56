import pytest
import torch
from torch import Tensor

from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn.backbone import AddedRows, Backbone, Embeddings, mean_of, normal_table, rows

PAIRS = Interactions(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 0, 1]))
GRAPH = BipartiteGraph.from_interactions(PAIRS, 3, 2)


class Doubles(Backbone):
    """Adds what the neighbours hold; the one method a backbone has to write."""

    def propagate(self, x: Tensor, graph: BipartiteGraph) -> Tensor:
        return x + graph.propagate(x)


def embeddings() -> Embeddings:
    generator = torch.Generator().manual_seed(0)
    user, item, layer = (torch.randn(n, 4, generator=generator) for n in (3, 5, 8))
    posterior = (torch.zeros(3, 2), torch.ones(3, 2))
    parts = [x.requires_grad_() for x in (user, item, layer, *posterior)]
    return Embeddings(parts[0], parts[1], (parts[2],), (parts[3], parts[4]))


def parts(out: Embeddings) -> list[Tensor]:
    return [out.user, out.item, *out.layers, *(out.posterior or ())]


def test_a_backbone_needs_nothing_but_propagate():
    model = Doubles(3, 2, 4, generator=torch.Generator())
    out = model(GRAPH)
    expected = torch.cat([model.user, model.item])
    expected = expected + GRAPH.adjacency.to_dense() @ expected
    torch.testing.assert_close(torch.cat([out.user, out.item]), expected)
    assert len(out.layers) == 1 and out.posterior is None


def test_a_backbone_without_propagate_says_what_to_write():
    with pytest.raises(NotImplementedError, match="Backbone defines neither 'propagate' nor"):
        Backbone(3, 2, 4)(GRAPH)


@pytest.mark.parametrize("sizes", [(4, 2), (3, 1)])
def test_a_graph_of_another_size_is_refused(sizes):
    with pytest.raises(ValueError, match=r"3 users and 2 items, the backbone . and .; call 'grow'"):
        Doubles(*sizes, 4)(GRAPH)


def test_tables_follow_the_generator_and_the_deviation():
    first, again, other = (
        normal_table(4000, 2, 0.3, torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.detach().std()) == pytest.approx(0.3, rel=0.03)
    assert float(first.detach().mean()) == pytest.approx(0.0, abs=0.02)


def test_scores_and_pairs_are_inner_products():
    out = embeddings()
    user, item = torch.tensor([2, 0]), torch.tensor([4, 1])
    dense = torch.stack([torch.stack([(u * i).sum() for i in out.item]) for u in out.user])
    torch.testing.assert_close(out.scores(user), dense[user])
    torch.testing.assert_close(out.pairs(user, item), dense[user, item])
    many = torch.tensor([[0, 1, 2], [3, 4, 0]])
    torch.testing.assert_close(out.pairs(user.unsqueeze(-1), many), dense[user[:, None], many])
    assert (out.num_users, out.num_items) == (3, 5)


def test_rows_equal_indexing_both_ways():
    table = torch.randn(4, 3, generator=torch.Generator(), requires_grad=True)
    index = torch.tensor([[3, 0], [3, 3]])
    gradients = []
    for picked in (rows(table, index), table[index]):
        torch.testing.assert_close(picked, table.detach()[index])
        gradients += torch.autograd.grad(picked.square().sum(), table)
    torch.testing.assert_close(*gradients)


def test_detached_embeddings_keep_every_value_and_no_gradient():
    out = embeddings()
    cut = out.detach()
    for before, after in zip(parts(out), parts(cut), strict=True):
        assert torch.equal(before, after) and not after.requires_grad


def test_moving_takes_every_part():
    assert {x.device.type for x in parts(embeddings().to("meta"))} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(0,), (6,), (3, 2)])
def test_rows_as_a_cuda_device_adds_them_equal_the_others(dtype, shape):
    """Repeated rows, none, and the narrow indices of sampled subgraphs."""
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([4, 0, 4, 4, 2, 0], dtype=dtype)[: torch.Size(shape).numel()].view(shape)
    ours, theirs = AddedRows.apply(table, index), rows(table, index)
    assert torch.equal(ours, theirs)
    into = torch.randn(*shape, 3, dtype=torch.float64)
    gradients = [torch.autograd.grad(out, table, into)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_a_mean_of_layers_has_the_bits_of_a_stacked_one(num):
    layers = [torch.randn(40, 8, requires_grad=True) for _ in range(num)]
    ours, theirs = mean_of(layers), torch.stack(layers).mean(0)
    assert torch.equal(ours, theirs)
    into = torch.randn(40, 8)
    gradients = (torch.autograd.grad(x, layers, into) for x in (ours, theirs))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_on_a_cuda_device_are_those_of_the_cpu():
    table = torch.randn(50, 8, requires_grad=True)
    index, into = torch.randint(50, (300, 2)), torch.randn(300, 2, 8)
    there = table.detach().cuda().requires_grad_()
    ours, theirs = rows(there, index.cuda()), rows(table, index)
    assert torch.equal(ours.cpu(), theirs)
    (found,), (expected,) = (
        torch.autograd.grad(out, x, into.to(x.device))
        for out, x in ((ours, there), (theirs, table))
    )
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-4)
