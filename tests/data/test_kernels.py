"""The kernels of a CUDA device; elsewhere in Triton's interpreter, where TRITON_INTERPRET=1."""

import os
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.data import sparse, synthetic_stream
from ccdgraph.data.chunks import Chunks
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.sparse import Product, RowMean, csr, sparse_product, without_kernels
from ccdgraph.nn import LightGCN
from ccdgraph.sampling import TripletBatches
from ccdgraph.train import BPR, FitConfig, Objective, Part, embed, fit

CUDA = torch.cuda.is_available() and without_kernels(torch.device("cuda", 0)) is None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
DEVICE = torch.device("cuda", 0) if CUDA else torch.device("cpu")

kernels = pytest.mark.skipif(
    not (CUDA or INTERPRETED), reason="needs a CUDA device, or Triton with TRITON_INTERPRET=1"
)
cuda = pytest.mark.skipif(not CUDA, reason="needs a CUDA device with Triton")

COUNTS = (0, 3, 40, 1, 0, 17, 9, 0, 2, 300, 8, 0)  # entries of every row; empty ones at both ends


def matrix(counts: tuple[int, ...], columns: int = 15) -> tuple[Tensor, Tensor]:
    """A CSR matrix of random entries, columns repeated, and its transpose, made densely."""
    draw = rng("kernels")
    pointer = torch.tensor([0, *counts]).cumsum(0)
    column = torch.randint(columns, (int(pointer[-1]),), generator=draw)
    weight = torch.randn(len(column), generator=draw)
    given = csr(pointer, column, weight, (len(counts), columns)).to(DEVICE)
    row = torch.repeat_interleave(torch.arange(len(counts)), pointer.diff())
    order = column.argsort(stable=True)
    heads = torch.bincount(column, minlength=columns).cumsum(0)
    heads = torch.cat([heads.new_zeros(1), heads])
    return given, csr(heads, row[order], weight[order], (columns, len(counts))).to(DEVICE)


def chunked(given: Tensor, transposed: Tensor, length: int) -> tuple[Chunks, Chunks]:
    first, second = (Chunks.of(m.crow_indices(), length=length) for m in (given, transposed))
    return first, second


@kernels
@pytest.mark.parametrize("dim", [1, 3, 8, 20, 64, 100, 130, 640])
@pytest.mark.parametrize("length", [4, 256])
def test_products_and_gradients_equal_the_dense_ones_in_float64(dim, length):
    """Rows that are empty, in one chunk, and in many; wrong if partial sums meet another row."""
    given, transposed = matrix(COUNTS, 40)  # cuSPARSE refuses more entries than places
    dense, plan = given.to_dense().double(), chunked(given, transposed, length)
    x = torch.randn(40, dim, generator=rng(dim)).to(DEVICE).requires_grad_()
    into = torch.randn(len(COUNTS), dim, generator=rng(dim, "into")).to(DEVICE)
    out = sparse_product(given, transposed, x, plan)
    (gradient,) = torch.autograd.grad(out, x, into)
    torch.testing.assert_close(out.double(), dense @ x.double(), rtol=1e-5, atol=1e-4)
    expected = dense.T @ into.double()
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(out, sparse_product(given, transposed, x), rtol=1e-5, atol=1e-4)


@kernels
def test_rows_of_x_may_lie_anywhere():
    given, transposed = matrix(COUNTS)
    dense, plan = given.to_dense().double(), chunked(given, transposed, 4)
    table = torch.randn(16, 24, generator=rng("table")).to(DEVICE)
    for x in (table[1:, 3:11], table[:15].T[:15, :5], table[:1].expand(15, 24), table[1:, :1]):
        out = sparse_product(given, transposed, x, plan)
        torch.testing.assert_close(out.double(), dense @ x.double(), rtol=1e-5, atol=1e-4)


@kernels
@pytest.mark.parametrize("counts", [(), (0,), (0, 0, 0), (5000,), (0, 5000, 1)])
def test_no_rows_no_entries_and_one_giant_row(counts):
    given, transposed = matrix(counts)
    plan = chunked(given, transposed, 256)
    x = torch.randn(15, 8, generator=rng("x")).to(DEVICE).requires_grad_()
    out = sparse_product(given, transposed, x, plan)
    expected = given.to_dense().double() @ x.double()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-3)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    expected = given.to_dense().double().sum(0)[:, None].expand(15, 8)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-3)


@kernels
def test_two_products_have_the_same_bits():
    given, transposed = matrix((5000, *COUNTS))
    plan = chunked(given, transposed, 64)
    x = torch.randn(15, 64, generator=rng("bits")).to(DEVICE)
    first, second = (sparse_product(given, transposed, x, plan) for _ in range(2))
    assert torch.equal(first, second)


@cuda
def test_graphs_and_means_use_the_kernels_unless_they_are_switched_off(monkeypatch):
    import ccdgraph.data.kernels as module

    calls, original = [], module.chunked_product
    monkeypatch.setattr(
        module, "chunked_product", lambda *given: calls.append(given) or original(*given)
    )
    block = synthetic_stream(60, 50, 900, num_blocks=1)[0].to(DEVICE)
    graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
    x = torch.randn(graph.num_nodes, 8, device=DEVICE)
    products = (graph.propagate, lambda x: RowMean(graph.user_items)(x[graph.num_users :]))
    for product in products:
        calls.clear()
        fast = product(x)
        assert len(calls) == 1
        monkeypatch.setenv(sparse.SWITCH, "0")
        torch.testing.assert_close(product(x), fast)
        assert len(calls) == 1
        monkeypatch.delenv(sparse.SWITCH)
    assert product(x.double()).dtype == torch.float64 and len(calls) == 1


@cuda
@pytest.mark.parametrize("record", [False, True])
def test_training_is_the_same_with_and_without_kernels(monkeypatch, record):
    block = synthetic_stream(200, 150, 4000, num_blocks=1)[0].to(DEVICE)
    sizes = block.num_users, block.num_items
    served = []
    for switch in ("1", "0"):
        monkeypatch.setenv(sparse.SWITCH, switch)
        graph = BipartiteGraph.from_interactions(block.train, *sizes)
        model = LightGCN(*sizes, 16, std=0.1, generator=rng("model")).to(DEVICE)
        draw = rng("order", device=DEVICE)
        batches = TripletBatches(
            block.train, sizes[1], graph.user_items.keys(), batch_size=256, generator=draw
        )
        fit(model, graph, [Objective((Part(BPR(), batches),))], FitConfig(epochs=3, record=record))
        served.append(embed(model, graph).user)
    torch.testing.assert_close(*served, rtol=1e-3, atol=1e-4)


def test_on_a_cpu_nothing_of_triton_is_used(monkeypatch):
    monkeypatch.setenv(sparse.SWITCH, "1")
    assert without_kernels(torch.device("cpu")) == "no CUDA device"
    monkeypatch.setenv(sparse.SWITCH, "0")
    assert without_kernels(torch.device("cpu")) == "CCDGRAPH_TRITON=0"
    eye = torch.eye(3).to_sparse_csr()
    assert "chunks" not in vars(Product(eye, eye)) and torch.equal(
        Product(eye, eye)(torch.eye(3)), torch.eye(3)
    )
