import pytest
import torch
from planted import generator

from ccdgraph.distill.consensus import consensus, ranks_in


def draw(sources=6, users=7, items=30, length=8, short=True):
    g = generator()
    lists = torch.stack(
        [
            torch.stack([torch.randperm(items, generator=g)[:length] for _ in range(users)])
            for _ in range(sources)
        ]
    )
    weight = torch.rand(lists.shape, generator=g)
    if short:
        lists[0, 2, 5:] = lists[3, 2, 1:] = -1
        lists[:, 4] = -1
    return lists, weight


@pytest.mark.parametrize("k", [3, 20])
def test_sparse_consensus_equals_the_dense_one(k):
    lists, weight = draw()
    found = consensus(lists, weight, k)
    for user in range(lists.size(1)):
        dense = torch.zeros(30, dtype=torch.float64)
        known = set()
        for source in range(lists.size(0)):
            for item, w in zip(lists[source, user].tolist(), weight[source, user], strict=True):
                if item >= 0:
                    dense[item] += w.double()
                    known.add(item)
        best = sorted(known, key=lambda i, dense=dense: (-float(dense[i]), i))[:k]
        assert found[user].tolist() == best + [-1] * (k - len(best))


def test_equal_weights_fall_to_the_smaller_id():
    lists = torch.tensor([[[9, 4]], [[4, 9]], [[7, -1]]])
    assert consensus(lists, torch.ones(3, 1, 2), 3).tolist() == [[4, 9, 7]]


def test_a_consensus_longer_than_all_lists_is_padded():
    assert consensus(torch.tensor([[[3, -1]]]), torch.ones(1, 1, 2), 4).tolist() == [
        [3, -1, -1, -1]
    ]


def test_ranks_equal_a_search():
    lists, _ = draw()
    item = torch.randint(-1, 30, (6, 7, 11), generator=generator(4))
    found = ranks_in(lists, item)
    for s in range(6):
        for u in range(7):
            row = lists[s, u].tolist()
            expected = [row.index(i) if i in row and i >= 0 else 8 for i in item[s, u].tolist()]
            assert found[s, u].tolist() == expected
