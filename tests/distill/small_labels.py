"""Labels that the tests of the store share."""

import torch

from ccdgraph.distill.labels import LabelWriter, SoftLabels

DATA = {"stream": "a", "users": "b"}
SIZES = {"num_users": 5, "num_items": 300}


def labels(version="v1", block=0, seed=0) -> SoftLabels:
    """Lists of users 0, 1 and 4; user 1 has a short one, users 2 and 3 none."""
    draw = torch.Generator().manual_seed(seed)
    lists = torch.tensor([[299, 3, 0], [7, -1, -1], [3, 7, 8]])
    scores = torch.randn(3, 3, generator=draw).sort(descending=True).values
    return SoftLabels.from_lists(
        torch.tensor([0, 1, 4]), lists, scores, version=version, block=block
    )


def written(folder, *parts, **options) -> str:
    with LabelWriter(folder, DATA) as writer:
        for part in parts or (labels(),):
            writer.write(part, **SIZES, **options)
    return str(folder)


def assert_same(one: SoftLabels, other: SoftLabels) -> None:
    for name in ("user", "item", "rank", "score"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)
    assert (one.version, one.block) == (other.version, other.block)
