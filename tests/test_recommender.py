import pytest
import torch

from ccdgraph.config import rng
from ccdgraph.data import UserItems, synthetic_stream
from ccdgraph.distill.teacher import Ensemble
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import recommend_lists
from ccdgraph.recommender import Recommender

BLOCK = synthetic_stream(80, 300, 3000, num_blocks=1)[0]
SIZES = BLOCK.num_users, BLOCK.num_items
SEEN = UserItems.from_interactions([BLOCK.train], *SIZES)
HEAVY = int(SEEN.degree.argmax())

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")


def embeddings(*seed: int, rounded: bool = False) -> Embeddings:
    """Rounded ones tie all the time."""
    draw = rng("recommender", *seed)
    tables = [torch.randn(n, 4, generator=draw) for n in SIZES]
    return Embeddings(*(table.round() if rounded else table for table in tables))


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("k", [1, 3, 20, SIZES[1]])
def test_what_is_recorded_lists_what_everyone_else_lists(rounded, k):
    """On a CPU nothing is recorded, but it is the same function; wrong if the mask is cut off."""
    out = embeddings(0, rounded=rounded)
    recommender = Recommender(out, SEEN, k=k, batch_size=5)
    for first in range(0, SIZES[0] - 5, 5):
        recommender.user.copy_(torch.arange(first, first + 5))
        expected = recommend_lists(out, recommender.user, k, SEEN)
        assert all(map(torch.equal, recommender._answer(), expected))


def test_a_batch_may_be_short_and_its_users_may_repeat():
    recommender = Recommender(embeddings(1), SEEN, k=4, batch_size=3)
    for request in ([7], [HEAVY] * 3, [2, 9]):
        user = torch.tensor(request)
        expected = recommend_lists(embeddings(1), user, 4, SEEN)
        assert all(map(torch.equal, recommender(user), expected))


def test_a_batch_fits_unless_a_user_or_the_room_is_missing():
    recommender = Recommender(embeddings(1), SEEN, k=4, batch_size=3)
    fits = {tuple(r): recommender._fits(torch.tensor(r)) for r in ([0, 1, 2], [HEAVY] * 3, [0, -1])}
    assert list(fits.values()) == [True, False, False]


def test_what_cannot_be_answered_is_refused():
    recommender = Recommender(embeddings(1), SEEN, k=4, batch_size=2)
    with pytest.raises(ValueError, match=r"'user' has 3 entries, expected 1 to 2"):
        recommender(torch.arange(3))
    with pytest.raises(ValueError, match=r"'user' holds ids 900 to 900"):
        recommender(torch.tensor([900]))
    with pytest.raises(ValueError, match="'seen' covers 1 users"):
        Recommender(embeddings(1), UserItems(torch.tensor([0, 0]), SEEN.item[:0], SIZES[1]))


@cuda
@pytest.mark.parametrize("members", [0, 3])
@pytest.mark.parametrize("rounded", [False, True])
def test_recorded_lists_equal_those_launched_one_by_one(members, rounded):
    """Short batches, repeated users and, of an ensemble, ranks; wrong if a request is stale."""
    device = torch.device("cuda", 0)
    there = [embeddings(m, rounded=rounded).to(device) for m in range(max(members, 1))]
    scorer, seen = Ensemble(there) if members else there[0], SEEN.to(device)
    recommender = Recommender(scorer, seen, k=6, batch_size=4, device=device)
    assert recommender.graph is not None
    for request in ([5], [HEAVY] * 4, [1, 2, 3, 4], [9, 8], [30]):
        user = torch.tensor(request)
        score, item = recommender(user)
        expected = recommend_lists(scorer, user.to(device), 6, seen)
        torch.testing.assert_close(score, expected[0].cpu())
        if rounded:  # whole numbers, so that no batch size sums them in another order
            assert torch.equal(item, expected[1].cpu())
        if rounded and not members:
            assert torch.equal(item, recommend_lists(embeddings(0, rounded=True), user, 6, SEEN)[1])


@cuda
def test_a_recorded_model_that_has_diverged_is_an_error():
    out = embeddings(0).to("cuda")
    recommender = Recommender(out, SEEN.to("cuda"), k=6, device="cuda")
    out.item[0] = float("nan")
    with pytest.raises(ValueError, match="the model has diverged"):
        recommender(torch.tensor([3]))
