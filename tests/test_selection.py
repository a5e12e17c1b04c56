import pytest
import torch

from ccdgraph.config import rng
from ccdgraph.data import Interactions, UserItems, synthetic_stream
from ccdgraph.evaluate import evaluate
from ccdgraph.nn import Embeddings
from ccdgraph.selection import Validation

BLOCK = synthetic_stream(80, 60, 1500, num_blocks=1)[0]
SIZES = BLOCK.num_users, BLOCK.num_items
SEEN = UserItems.from_interactions([BLOCK.train], *SIZES)


def embeddings(*seed: int) -> Embeddings:
    draw = rng("validation", *seed)
    return Embeddings(*(torch.randn(n, 4, generator=draw) for n in SIZES))


def held_out(num: int) -> Interactions:
    """Pairs that repeat, some of them seen."""
    draw = rng("held", num)
    pairs = (torch.randint(n, (num,), generator=draw) for n in SIZES)
    return Interactions.cat([Interactions(*pairs), BLOCK.train[:10], BLOCK.train[:10]])


@pytest.mark.parametrize("k", [7, 40])
@pytest.mark.parametrize("num", [40, 300])
def test_a_validation_has_the_bits_of_an_evaluation(k, num):
    """Asked twice, as after two epochs; wrong if padding hits or repeated targets count twice."""
    targets = held_out(num)
    validation = Validation(targets, SEEN, k=k)
    for epoch in range(2):
        out = embeddings(epoch)
        expected = evaluate(out, targets, SEEN, ks=(k,)).mean()[f"recall@{k}"]
        assert validation(out) == expected > 0


def test_what_was_seen_is_not_listed():
    out = Embeddings(torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0]]))
    seen = UserItems(torch.tensor([0, 1]), torch.tensor([0]), 3)
    targets = Interactions(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert Validation(targets, seen, k=1)(out) == 0.5


def test_a_model_that_has_diverged_is_an_error():
    out = embeddings(0)
    out.item[3, 1] = float("nan")
    with pytest.raises(ValueError, match="the model has diverged"):
        Validation(held_out(5), SEEN, k=3)(out)
