from itertools import permutations
from math import exp

import pytest
import torch
from torch import Tensor

from ccdgraph.continual.config import ReplayConfig
from ccdgraph.continual.replay import Memory, ReplayBatches, memorise, moving_average
from ccdgraph.continual.stages import _annealed
from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.nn import Embeddings


def user_items(pairs: list[tuple[int, int]], num_users: int, num_items: int) -> UserItems:
    user, item = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)
    return UserItems.from_interactions([Interactions(user, item)], num_users, num_items)


def scoring(scores: Tensor) -> Embeddings:
    """Embeddings whose scores are exactly ``scores``."""
    return Embeddings(scores.float(), torch.eye(scores.size(1)))


def random_out(seed: int, num_users: int, num_items: int) -> Embeddings:
    return scoring(torch.randn(num_users, num_items, generator=torch.Generator().manual_seed(seed)))


def naive_ranks(row: list[float], hidden: set[int]) -> dict[int, int]:
    """0-based rank of every item that is not hidden, by (score descending, id ascending)."""
    free = sorted((i for i in range(len(row)) if i not in hidden), key=lambda i: (-row[i], i))
    return {item: rank for rank, item in enumerate(free)}


def inclusion(weights: list[float], draws: int) -> list[float]:
    """Chance of each place to be among ``draws`` sequential draws without replacement."""
    chance = [0.0] * len(weights)
    for order in permutations(range(len(weights)), draws):
        probability, left = 1.0, sum(weights)
        for place in order:
            probability *= weights[place] / left
            left -= weights[place]
        for place in order:
            chance[place] += probability
    return chance


def replay(memories: list[Memory], seen: UserItems, **options) -> ReplayBatches:
    return ReplayBatches(memories, seen, generator=torch.Generator().manual_seed(0), **options)


def pairs_of(batches: ReplayBatches, epoch: int, out: Embeddings) -> dict[tuple[int, int], float]:
    drawn = list(batches.epoch(epoch, lambda: out))
    user, item, label = (
        torch.cat([getattr(b, c) for b in drawn]).tolist() for c in ("user", "item", "label")
    )
    found = dict(zip(zip(user, item, strict=True), label, strict=True))
    assert len(found) == len(user), "a pair is swept twice"
    return found


def test_moving_average_by_hand():
    old = Embeddings(torch.tensor([[10.0]]), torch.tensor([[0.0], [2.0]]))
    new = Embeddings(torch.tensor([[20.0], [7.0]]), torch.tensor([[10.0], [12.0], [5.0]]))
    mixed = moving_average(old, new, 0.9)
    assert mixed.user.flatten().tolist() == pytest.approx([11.0, 7.0])
    assert mixed.item.flatten().tolist() == pytest.approx([1.0, 3.0, 5.0])


def test_moving_average_keeps_all_or_nothing_at_its_ends():
    old, new = random_out(0, 3, 4), random_out(1, 5, 4)
    assert torch.equal(moving_average(old, new, 1.0).user[:3], old.user)
    assert torch.equal(moving_average(old, new, 1.0).user[3:], new.user[3:])
    assert torch.equal(moving_average(old, new, 0.0).user, new.user)


@pytest.mark.parametrize("keep", [0.0, 0.4, 1.0])
def test_a_student_with_axes_of_its_own_is_turned_before_it_is_averaged(keep):
    """Its common rows say what the proxy says, so new rows get the student's scores with them."""
    student = random_out(0, 5, 4)
    width = student.user.size(1)
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator()))[0]
    old = Embeddings(student.user[:3] @ turn, student.item[:3] @ turn)
    mixed = moving_average(old, student, keep, align=True)
    everyone = torch.arange(5)
    torch.testing.assert_close(mixed.scores(everyone), student.scores(everyone))
    torch.testing.assert_close(mixed.user[:3], old.user)
    apart = moving_average(old, student, 1.0)
    assert not torch.allclose(apart.scores(everyone[3:]), student.scores(everyone[3:]), atol=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_memory_holds_the_best_unseen_items_and_their_sigmoids(temperature):
    source = random_out(2, 7, 6)
    seen = [(u, i) for u in range(9) for i in range(8) if (u + 2 * i) % 3 == 0]
    seen += [(5, i) for i in range(8)] + [(6, i) for i in range(8) if i != 4]
    memory = memorise(
        source, user_items(seen, 9, 8), depth=3, draws=2, temperature=temperature, budget=200
    )
    assert memory.draws == 2 and memory.item.shape == (7, 3)
    for user, row in enumerate(source.user.tolist()):
        ranks = naive_ranks(row, {i for u, i in seen if u == user})
        best = sorted(ranks, key=ranks.get)[:3]
        assert memory.item[user].tolist() == best + [-1] * (3 - len(best))
        labels = [1 / (1 + exp(-row[i] / temperature)) for i in best]
        assert memory.label[user, : len(best)].tolist() == pytest.approx(labels)
    assert memory.item[5].tolist() == [-1] * 3 and memory.item[6].tolist() == [4, -1, -1]
    assert memory.label.dtype == torch.float32


def test_memory_is_no_deeper_than_the_catalogue_and_leaves_the_source_alone():
    source = random_out(3, 2, 4)
    before = source.user.clone()
    memory = memorise(source, user_items([(0, 0)], 2, 4), depth=100, draws=1)
    assert memory.item.shape == (2, 4) and memory.item[0].tolist()[-1] == -1
    assert torch.equal(source.user, before)


@pytest.mark.parametrize("budget", [1, 10_000, 2**28])
def test_ranks_count_the_unseen_items_that_the_model_puts_higher(budget):
    out = scoring((torch.randn(9, 12, generator=torch.Generator().manual_seed(4)) * 2).round())
    seen = [(u, i) for u in range(9) for i in range(12) if (u * i) % 4 == 1]
    lists = user_items(seen, 9, 12)
    memories = [
        memorise(random_out(5, 9, 12), lists, depth=4, draws=2),
        memorise(random_out(6, 6, 12), lists, depth=7, draws=2),  # a proxy that knows fewer users
    ]
    batches = replay(memories, lists, budget=budget)
    for memory, ranks in zip(memories, batches._ranks(out), strict=True):
        assert ranks.shape == memory.item.shape
        for user in range(len(ranks)):
            truth = naive_ranks(out.user[user].tolist(), {i for u, i in seen if u == user})
            real = [
                (i, r)
                for i, r in zip(memory.item[user].tolist(), ranks[user].tolist(), strict=True)
                if i >= 0
            ]
            assert real and all(truth[i] == r for i, r in real)


def test_a_sample_of_users_is_remembered_and_ranked_as_among_all():
    lists, chosen = user_items([(1, 2), (5, 3)], 9, 12), torch.tensor([1, 4, 5, 8])
    sources = [random_out(5, 9, 12), random_out(6, 6, 12)]  # the second does not know user 8
    everyone = [memorise(source, lists, depth=4, draws=2) for source in sources]
    some = [memorise(source, lists, depth=4, draws=2, user=chosen) for source in sources]
    assert [memory.user.tolist() for memory in some] == [[1, 4, 5, 8], [1, 4, 5]]
    out = random_out(7, 9, 12)
    ranks = [replay(memories, lists, budget=400)._ranks(out) for memories in (everyone, some)]
    for memory, whole, all_ranks, own in zip(some, everyone, *ranks, strict=True):
        assert memory.item.equal(whole.item[memory.user])
        assert memory.label.equal(whole.label[memory.user])
        assert own.equal(all_ranks[memory.user])
    assert {user for user, _ in pairs_of(replay(some, lists), 0, out)} == {1, 4, 5, 8}


@pytest.mark.parametrize("adaptive", [True, False])
def test_draws_follow_the_rank_disparity_without_replacement(adaptive):
    """Every user has one list and one model: 20,000 users are as many repetitions.

    Weights are exp(0.4 * (model's rank - source's rank)). Ignoring ranks, swapping their sign,
    or drawing with replacement moves a chance by more than the bound of five binomial errors.
    """
    num, depth, draws = 20_000, 5, 2
    model = [0.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0]  # ranks: 6 0 5 1 4 2 3
    source = torch.tensor([1, 5, 0, 4, 2]).repeat(num, 1)
    memory = Memory(source, torch.full((num, depth), 0.5), draws, torch.arange(num))
    batches = replay([memory], user_items([], num, 7), sharpness=0.4, adaptive=adaptive)
    drawn = batches._draw(Embeddings(torch.tensor([model]).repeat(num, 1), torch.eye(7)))
    ranks = naive_ranks(model, set())
    weights = [exp(0.4 * (ranks[i] - place) * adaptive) for place, i in enumerate([1, 5, 0, 4, 2])]
    assert torch.bincount(drawn.user).tolist() == [draws] * num
    count = torch.bincount(drawn.item, minlength=7)[[1, 5, 0, 4, 2]].tolist()
    for seen, chance in zip(count, inclusion(weights, draws), strict=True):
        assert abs(seen / num - chance) < 5 * (chance * (1 - chance) / num) ** 0.5
    assert inclusion([1.0] * 5, 2) == pytest.approx([0.4] * 5)


def test_padding_is_never_drawn_and_short_lists_are_taken_whole():
    item = torch.tensor([[3, -1, -1], [-1, -1, -1], [0, 2, -1]])
    memory = Memory(item, torch.full((3, 3), 0.7), 2, torch.arange(3))
    drawn = pairs_of(replay([memory], user_items([], 3, 4)), 0, random_out(0, 3, 4))
    assert set(drawn) == {(0, 3), (2, 0), (2, 2)}


def test_the_larger_label_counts_where_sources_agree():
    one = torch.arange(1)
    stability = Memory(torch.tensor([[0, 1]]), torch.tensor([[0.9, 0.2]]), 2, one)
    plasticity = Memory(torch.tensor([[1, 0]]), torch.tensor([[0.6, 0.3]]), 2, one)
    seen = user_items([], 1, 2)
    for memories in ([stability, plasticity], [plasticity, stability]):
        drawn = pairs_of(replay(memories, seen), 0, random_out(0, 1, 2))
        assert drawn == pytest.approx({(0, 0): 0.9, (0, 1): 0.6})


def test_every_pair_is_swept_once_in_an_epoch_the_last_short_batch_too():
    memory = memorise(random_out(7, 11, 9), user_items([], 11, 9), depth=9, draws=3)
    batches = replay([memory], user_items([], 11, 9), batch_size=8)
    for epoch in range(3):
        sizes = [len(b.user) for b in batches.epoch(epoch, lambda: random_out(8, 11, 9))]
        assert sizes == [8, 8, 8, 8, 1]
        assert len(pairs_of(batches, epoch, random_out(8, 11, 9))) == 33


def test_lists_are_redrawn_every_few_epochs_with_the_model_of_the_moment():
    memory = memorise(random_out(9, 20, 15), user_items([], 20, 15), depth=15, draws=4)
    batches = replay([memory], user_items([], 20, 15), redraw=2)
    asked, drawn = [], []
    for epoch in range(5):
        drawn += [set(pairs_of(batches, epoch, random_out(epoch, 20, 15)))]
        list(batches.epoch(1, lambda epoch=epoch: asked.append(epoch)))
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3] != drawn[4]
    assert not asked, "the model is asked only when lists are redrawn"


def test_a_model_that_forgot_an_item_gets_it_replayed():
    """With a sharp draw the item the current model ranks last is the one that is drawn."""
    num_items = 6
    item, label = torch.arange(num_items).unsqueeze(0), torch.full((1, num_items), 0.5)
    memory = Memory(item, label, 1, torch.arange(1))
    batches = replay([memory], user_items([], 1, num_items), sharpness=100.0, redraw=1)
    for epoch, forgotten in enumerate((0, 2, 1)):
        scores = -torch.arange(num_items).float()  # as in memory, but for the forgotten one
        scores[forgotten] = -100.0
        drawn = pairs_of(batches, epoch, scoring(scores.unsqueeze(0)))
        assert set(drawn) == {(0, forgotten)}


def test_sources_without_draws_replay_nothing():
    memory = memorise(random_out(0, 3, 4), user_items([], 3, 4), depth=2, draws=0)
    assert list(replay([memory], user_items([], 3, 4)).epoch(0, lambda: pytest.fail("asked"))) == []
    assert list(replay([], user_items([], 3, 4)).epoch(0, lambda: pytest.fail("asked"))) == []


def test_the_weight_falls_by_e_in_the_annealing_time():
    config = ReplayConfig()
    weights = [_annealed(config.weight, config.anneal, epoch) for epoch in (0, 1, 10, 20)]
    assert weights == pytest.approx([0.5, 0.5 * exp(-0.1), 0.5 / exp(1), 0.5 / exp(2)])
