import pytest
import torch

from ccdgraph import topk as module
from ccdgraph.topk import _by_groups, keyed_topk, topk


@pytest.mark.parametrize("width", [2, 4, 16])
@pytest.mark.parametrize("items", [64, 67, 130])
def test_the_largest_by_groups_are_the_largest(width, items):
    """Wrong if one group too few is opened, or if columns behind the last group are forgotten."""
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        scores = torch.randn(7, items, generator=draw)
        if seed % 2:
            scores = scores.round()
        if seed % 5 == 0:
            scores = scores.masked_fill(torch.rand(7, items, generator=draw) < 0.9, float("-inf"))
        k = 1 + seed % min(9, items // width)
        values, index = _by_groups(scores, k, width)
        assert torch.equal(values, scores.topk(k, dim=1).values)
        assert torch.equal(scores.gather(1, index), values)
        assert all(len(set(row)) == k for row in index.tolist())


def test_a_nan_comes_first_by_groups_too():
    scores = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    scores[1, 37] = float("nan")
    values, index = _by_groups(scores, 4, 8)
    assert values.isnan().nonzero().tolist() == [[1, 0]] and index[1, 0] == 37


@pytest.mark.skipif(not torch.cuda.is_available(), reason="groups are for CUDA devices")
@pytest.mark.parametrize("rounded", [False, True])
def test_large_blocks_on_a_cuda_device_are_ranked_as_on_the_cpu(monkeypatch, rounded):
    scores = torch.randn(600, 9001, generator=torch.Generator().manual_seed(0))
    scores = (8 * scores).round() if rounded else scores
    scores[:50] = scores[:50].masked_fill(scores[:50] < 20, float("-inf"))
    used, original = [], module._by_groups
    monkeypatch.setattr(module, "_by_groups", lambda *given: used.append(given) or original(*given))
    values, index = topk(scores.cuda(), 100)
    assert len(used) == 1
    expected = topk(scores, 100)
    assert torch.equal(values.cpu(), expected[0]) and torch.equal(index.cpu(), expected[1])


@pytest.mark.parametrize("few", [0, 2**16])
@pytest.mark.parametrize("k", [1, 2, 9, 500])
def test_lists_by_keys_are_those_of_topk(monkeypatch, k, few):
    """Ties, two zeros and infinities; wrong if of equal groups another than the first is opened."""
    monkeypatch.setattr(module, "_FEW", few)  # selected, and sorted
    for seed in range(30):
        draw = torch.Generator().manual_seed(seed)
        scores = torch.randn(5, 701, generator=draw) * 10.0 ** (seed % 7 - 3)
        if seed % 2:
            scores = scores.round()
        if seed % 3 == 0:
            scores[scores == 0] = -0.0
            scores[:, ::5] = scores[:, ::5].masked_fill(scores[:, ::5] == 0, 0.0)
        if seed % 5 == 0:
            part = torch.rand(scores.shape, generator=draw)
            scores = scores.masked_fill(part < 0.995, float("-inf")).masked_fill(part > 0.999, 1e38)
        assert all(map(torch.equal, keyed_topk(scores, k), topk(scores, k)))


def test_a_nan_comes_first_by_keys_too():
    scores = torch.randn(3, 701, generator=torch.Generator().manual_seed(0))
    scores[1, 637], scores[2, 1], scores[2, 2] = -float("nan"), float("inf"), float("nan")
    values, index = keyed_topk(scores, 4)
    assert values.isnan().nonzero().tolist() == [[1, 0], [2, 0]]
    assert index[1, 0] == 637 and index[2, :2].tolist() == [2, 1]
