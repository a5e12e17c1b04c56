import pytest
import torch

from ccdgraph.data.datasets.skewed import skewed_interactions

USERS, ITEMS, ROWS, COMMUNITIES = 4000, 2000, 200_000, 20
WORLD = skewed_interactions(USERS, ITEMS, ROWS, num_communities=COMMUNITIES)


def test_sizes_are_exact_and_times_ascend():
    assert len(WORLD) == ROWS
    assert WORLD.user.dtype == WORLD.item.dtype == WORLD.time.dtype == torch.int64
    assert WORLD.user.min() >= 0 and WORLD.user.max() < USERS
    assert WORLD.item.min() >= 0 and WORLD.item.max() < ITEMS
    assert (WORLD.time.diff() >= 0).all()


def test_items_of_a_community_fall_off_as_a_power_of_their_rank():
    """Slope of log count against log rank, over early items: -0.8, not the 0 of uniform draws."""
    place = WORLD.item // COMMUNITIES
    count = torch.bincount(place, minlength=ITEMS // COMMUNITIES)[1:50].double()
    rank = torch.arange(2, 51).double().log()
    centred = rank - rank.mean()
    slope = (centred * count.log()).sum() / centred.square().sum()
    assert float(slope) == pytest.approx(-0.8, abs=0.1)


def test_the_activity_of_early_users_is_log_normal():
    count = torch.bincount(WORLD.user, minlength=USERS).double()
    early = count[count > 20].log()
    assert float(count.mean()) > 1.5 * float(count.median())
    assert 0.5 < float(early.std()) < 1.2
    assert float(count.max()) > 20 * float(count.median())


def test_users_prefer_their_community():
    """.7 of their own and a twentieth of the random rest."""
    own = (WORLD.item % COMMUNITIES == WORLD.user % COMMUNITIES).double().mean()
    assert float(own) == pytest.approx(0.7 + 0.3 / COMMUNITIES, abs=0.01)


@pytest.mark.parametrize("side", ["user", "item"])
def test_entities_arrive_all_along(side):
    """Six in ten of those ever seen are there in the first tenth, and not all at half time."""
    ids = getattr(WORLD, side)
    ever = len(ids.unique())
    assert 0.5 < len(ids[: ROWS // 10].unique()) / ever < 0.75
    assert len(ids[: ROWS // 2].unique()) / ever < 0.9


def test_a_seed_decides_everything():
    same, other = (skewed_interactions(50, 40, 300, num_communities=4, seed=s) for s in (1, 2))
    again = skewed_interactions(50, 40, 300, num_communities=4, seed=1)
    assert torch.equal(same.user, again.user) and torch.equal(same.item, again.item)
    assert not torch.equal(same.item, other.item)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_communities": 50}, "an item for every community"),
        ({"num_interactions": 0}, "there must be a user, a row"),
        ({"exponent": 1.0}, "'exponent' is 1.0"),
        ({"affinity": 1.5}, "'affinity' 1.5"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    options = {"num_users": 50, "num_items": 40, "num_interactions": 300, "num_communities": 4}
    with pytest.raises(ValueError, match=message):
        skewed_interactions(**{**options, **change})
