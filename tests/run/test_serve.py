import pytest
import torch

from ccdgraph.continual.growth import initial_rows
from ccdgraph.data import Interactions, UserItems, Vocabulary
from ccdgraph.run import DataConfig, RunConfig, Served, SyntheticConfig, recommend, run


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A LightGCN on communities that keep to their own items; ids show them, as in ``c3i0007``."""
    folder = tmp_path_factory.mktemp("planted") / "run"
    settings = {
        "backbone": {"backbone": "LightGCN", "dim": 16},
        "base": {"batch_size": 512, "fit": {"epochs": 15, "lr": 1e-2}},
    }
    sizes = SyntheticConfig(
        num_users=200, num_items=200, num_interactions=4000, affinity=1.0, drift=0.0
    )
    data = DataConfig(max_blocks=1, base=0.9, num_blocks=1, synthetic=sizes)
    run(RunConfig(data=data, strategy="FineTune", settings=settings), folder)
    return Served.load(folder)


def small():
    """Two users and four items with known embeddings; user ``a`` has item 10."""
    tensors = {
        "user": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "item": torch.tensor([[4.0, 0.0], [2.0, 2.0], [0.0, 4.0], [2.0, 2.0]]),
        "seen_indptr": torch.tensor([0, 1, 1]),
        "seen_item": torch.tensor([0]),
    }
    return Served(tensors, Vocabulary(["a", "b"]), Vocabulary([10, 20, 30, 40]))


def test_a_known_user_by_hand():
    assert small().recommend("a", 3) == [(20, 2.0), (40, 2.0), (30, 0.0)]
    assert small().recommend("b", 1) == [(30, 4.0)]


def test_a_new_user_by_hand():
    # the mean of (4, 0) and (0, 4) is (2, 2); both items are left out of the list
    assert small().fold_in([10, 30, 30]).tolist() == [2.0, 2.0]
    assert small().recommend_new([10, 30], 2) == [(20, 8.0), (40, 8.0)]
    assert small().recommend_new(["10", "30"], 4) == [(20, 8.0), (40, 8.0)]


def test_folding_in_is_the_one_hop_half_of_growth(planted):
    out, place = planted.embeddings, torch.tensor([3, 17, 50])
    users = UserItems.from_interactions(
        [Interactions(torch.full_like(place, out.num_users), place)],
        out.num_users + 1,
        out.num_items,
    )
    partners = UserItems.from_interactions(
        [Interactions(torch.tensor([0]), torch.tensor([0]))], out.num_items, out.num_users + 1
    )
    one, has, _ = initial_rows(users, partners, out.user, out.item, topk=2)
    assert has.tolist() == [True]
    mine = planted.fold_in(planted.items[place].tolist())
    torch.testing.assert_close(mine, one[0])


@pytest.mark.parametrize("community", range(3))
def test_a_new_user_is_shown_items_of_the_community_that_the_items_are_of(planted, community):
    """A mean over all items instead of the user's own shows every user the same items."""
    own = [item for item in planted.items.tolist() if item.startswith(f"c{community}i")]
    listed = [item for item, _ in planted.recommend_new(own[:3], 10)]
    assert sum(item in own[3:] for item in listed) >= 8
    assert not set(own[:3]) & set(listed)


def test_the_function_and_the_loaded_run_agree(straight):
    served = Served.load(straight)
    user = served.users[0]
    assert recommend(straight, user, 7) == served.recommend(user, 7)


def test_new_users_that_cannot_be_served_are_refused():
    with pytest.raises(ValueError, match="at least one item"):
        small().recommend_new([], 2)
    with pytest.raises(ValueError, match="'11' is not among the 4"):
        small().fold_in([11])
    lists = {"list_item": torch.tensor([[0, -1]]), "list_score": torch.tensor([[1.0, 0.0]])}
    served = Served(lists, Vocabulary(["a"]), Vocabulary([10]))
    assert served.recommend("a", 2) == [(10, 1.0)]
    with pytest.raises(ValueError, match="serves no embeddings"):
        served.recommend_new([10])
