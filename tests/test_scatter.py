"""Ragged reductions are equal with torch-scatter and with PyG's own fallback."""

import importlib

import pytest
import torch
import torch_geometric.typing
from torch import Tensor, nn
from torch_geometric.nn import GATConv, SAGEConv
from torch_geometric.utils import scatter, segment, softmax

try:
    importlib.import_module("torch_scatter")
except ImportError as error:
    pytest.skip(f"torch-scatter is absent ({error}); make scatter", allow_module_level=True)

POINTER = torch.tensor([0, 3, 3, 4, 9, 9, 12, 12])  # empty rows in the middle and at the end
INDEX = torch.arange(7).repeat_interleave(POINTER.diff())


def values(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, *shape, generator=generator, dtype=torch.float64)


def both(monkeypatch, reduce, source: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Value and gradient of ``reduce(source)`` with torch-scatter, then with the fallback."""
    results = []
    for present in (True, False):
        monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", present)
        leaf = source.clone().requires_grad_()
        out = reduce(leaf)
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        results.append((out.detach(), torch.autograd.grad((out * weight).sum(), leaf)[0]))
    return results


def assert_equal(results) -> None:
    (value, gradient), (other_value, other_gradient) = results
    torch.testing.assert_close(value, other_value)
    torch.testing.assert_close(gradient, other_gradient)


def test_pyg_sees_torch_scatter():
    assert torch_geometric.typing.WITH_TORCH_SCATTER


def test_the_switch_of_this_file_reaches_pyg(monkeypatch):
    """Without this, every test below could compare torch-scatter with itself."""
    calls = []
    real = torch_geometric.typing.torch_scatter.segment_csr
    monkeypatch.setattr(
        torch_geometric.typing.torch_scatter,
        "segment_csr",
        lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs),
    )
    both(monkeypatch, lambda x: segment(x, POINTER, reduce="sum"), values())
    assert calls == [1]


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_segment_is_equal(monkeypatch, reduce, shape):
    assert_equal(both(monkeypatch, lambda x: segment(x, POINTER, reduce=reduce), values(*shape)))


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_scatter_is_equal(monkeypatch, reduce, shape):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    index = INDEX[order]
    assert_equal(both(monkeypatch, lambda x: scatter(x, index, 0, 7, reduce), values(*shape)))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_softmax_is_equal_by_index_and_by_pointer(monkeypatch, scale):
    source = values(2) * scale
    assert_equal(both(monkeypatch, lambda x: softmax(x, ptr=POINTER), source))
    assert_equal(both(monkeypatch, lambda x: softmax(x, INDEX, num_nodes=7), source))
    (by_pointer, _), _ = both(monkeypatch, lambda x: softmax(x, ptr=POINTER), source)
    (by_index, _), _ = both(monkeypatch, lambda x: softmax(x, INDEX, num_nodes=7), source)
    torch.testing.assert_close(by_pointer, by_index)


@pytest.mark.parametrize("layer", [GATConv, SAGEConv])
def test_layers_are_equal(monkeypatch, layer):
    torch.manual_seed(0)
    module: nn.Module = layer(3, 5).double()
    edge_index = torch.stack([torch.arange(12) % 7, INDEX])
    assert_equal(both(monkeypatch, lambda x: module(x[:7], edge_index), values(3)))
