from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ccdgraph.data.interactions import Interactions, UserItems
from ccdgraph.data.stream import Block, Stream
from ccdgraph.data.vocabulary import Vocabulary
from ccdgraph.evaluate import Evaluation, evaluate, evaluate_block, seen_items, unseen_targets

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
PARTS = ("train", "valid", "test")
SIZES = ((12, 9), (15, 14), (20, 18))
KS = (1, 3, 6)

Pairs = set[tuple[int, int]]
EACH = [(p, m, s) for p in ("within", "next") for m in ("block", "strict") for s in PARTS[1:]]
each_mask = pytest.mark.parametrize(("protocol", "mask", "split"), EACH)


class Stored:
    """A scorer that hands out rows of a matrix and remembers the blocks it was asked for."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.num_users, self.num_items = matrix.shape
        self.asked: list[int] = []

    def scores(self, user: Tensor) -> Tensor:
        self.asked.append(len(user) * self.num_items)
        return self.matrix[user]


def events(*pairs: tuple[int, int]) -> Interactions:
    return Interactions(*torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1))


def pairs_of(rows: Interactions) -> Pairs:
    return set(zip(rows.user.tolist(), rows.item.tolist(), strict=True))


def random_stream(seed: int, protocol: str) -> Stream:
    """Three growing blocks; pairs repeat within a part, across parts and across blocks."""
    generator = torch.Generator().manual_seed(seed)

    def part(num_users: int, num_items: int, size: int) -> Interactions:
        user = torch.randint(0, num_users, (size,), generator=generator)
        return Interactions(user, torch.randint(0, num_items, (size,), generator=generator))

    blocks = tuple(
        Block(k, part(u, i, 60), part(u, i, 25), part(u, i, 25), u, i)
        for k, (u, i) in enumerate(SIZES)
    )
    return Stream(blocks, Vocabulary(range(20)), Vocabulary(range(18)), protocol)


def naive_seen(stream: Stream, tested: int, learnt: int, mask: str, split: str) -> Pairs:
    """The definition, one part of one block at a time."""
    seen: Pairs = set()
    for block in stream:
        j = block.index
        for name in PARTS:
            if stream.protocol == "next":
                use = (name == "train" and (j <= learnt or j == tested)) or (
                    name == "valid" and j == tested and split == "test"
                )
            elif mask == "block":
                use = j == tested and PARTS.index(name) < PARTS.index(split)
            else:
                use = {
                    "train": j <= learnt or j == tested,
                    "valid": (j <= learnt or j == tested) if split == "test" else j < tested,
                    "test": j < tested,
                }[name] and (j <= learnt or j == tested)
            seen |= pairs_of(getattr(block, name)) if use else set()
    return seen


def naive_metrics(listed: list[int], truth: set[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for k in KS:
        places = [r for r, item in enumerate(listed[:k], 1) if item in truth]
        ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(truth)) + 1))
        found[f"recall@{k}"] = len(places) / len(truth)
        found[f"trecall@{k}"] = len(places) / min(k, len(truth))
        found[f"hit@{k}"] = float(bool(places))
        found[f"mrr@{k}"] = 1 / places[0] if places else 0.0
        found[f"ndcg@{k}"] = sum(1 / math.log2(r + 1) for r in places) / ideal
    return found


def naive_evaluation(matrix: Tensor, targets: Pairs, seen: Pairs) -> dict[int, dict[str, float]]:
    """Every user's metrics by sorting the whole catalogue."""
    found = {}
    for user in sorted({u for u, _ in targets}):
        row = matrix[user].tolist()
        unseen = [i for i in range(len(row)) if (user, i) not in seen]
        listed = sorted(unseen, key=lambda i, row=row: (-row[i], i))
        found[user] = naive_metrics(listed, {i for u, i in targets if u == user})
    return found


def as_dict(evaluation: Evaluation) -> dict[int, dict[str, float]]:
    return evaluation.to_frame().set_index("user").to_dict("index")


def assert_same(found: Evaluation, wanted: dict[int, dict[str, float]]) -> None:
    measured = as_dict(found)
    assert measured.keys() == wanted.keys()
    for user, metrics in wanted.items():
        assert measured[user] == pytest.approx(metrics, abs=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@each_mask
def test_blocks_equal_a_loop_over_users(protocol: str, mask: str, split: str, device: str) -> None:
    """Fails if a mask takes one part too many or few, or if a group ranks part of the catalogue."""
    for seed in range(4):
        stream = random_stream(seed, protocol)
        for tested in range(3):
            for learnt in range(tested, 3 if protocol == "within" else tested + 1):
                matrix = torch.randn(
                    SIZES[learnt], generator=torch.Generator().manual_seed(seed)
                ).round(decimals=seed % 2)
                seen = naive_seen(stream, tested, learnt, mask, split)
                targets = pairs_of(getattr(stream[tested], split))
                targets -= seen if mask == "strict" else set()
                groups = evaluate_block(
                    Stored(matrix.to(device)), stream, tested, learnt, mask=mask, split=split, ks=KS
                )
                users, items = SIZES[tested - 1]
                chosen = {
                    "all": targets,
                    "new_users": {(u, i) for u, i in targets if u >= users},
                    "old_users": {(u, i) for u, i in targets if u < users},
                    "new_items": {(u, i) for u, i in targets if i >= items},
                    "old_items": {(u, i) for u, i in targets if i < items},
                }
                assert list(groups) == list(chosen)[: None if tested else 1]
                for name, group in groups.items():
                    assert_same(group, naive_evaluation(matrix, chosen[name], seen))


@each_mask
def test_masks_are_the_union_they_say(protocol: str, mask: str, split: str) -> None:
    stream = random_stream(9, protocol)
    for tested in range(3):
        for learnt in range(3):
            options = {"tested": tested, "learnt": learnt, "mask": mask, "split": split}
            seen = seen_items(stream, **options)
            user = torch.arange(seen.num_users)
            wanted = naive_seen(stream, tested, learnt, mask, split)
            assert pairs_of(Interactions(*seen.entries(user))) == wanted
            arrived = stream.blocks[: max(tested, learnt) + 1]
            assert torch.equal(seen_items(arrived, protocol=protocol, **options).item, seen.item)


def by_hand() -> tuple[Stored, Interactions, UserItems]:
    """User 0 lists 2, 3, 0 (1 is seen) and wants 3 and 1; user 1 has no target; user 2 wants 0."""
    matrix = torch.tensor([[1.0, 9.0, 5.0, 3.0], [1.0, 1.0, 1.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    seen = UserItems.from_interactions([events((0, 1))], 3, 4)
    return Stored(matrix), events((0, 3), (0, 1), (0, 3), (2, 0)), seen


def test_evaluation_by_hand() -> None:
    found = evaluate(*by_hand(), ks=(2,))
    assert found.user.tolist() == [0, 2]
    assert found.metrics["recall@2"].tolist() == [0.5, 1.0]
    assert found.metrics["mrr@2"].tolist() == [0.5, 1.0]
    assert found.mean()["ndcg@2"] == pytest.approx((1 / (1 + math.log2(3)) + 1) / 2)
    assert found.where(found.user < 1).mean()["hit@2"] == 1.0


def test_seen_targets_count_until_they_are_dropped() -> None:
    scorer, targets, seen = by_hand()
    reachable = unseen_targets(targets, seen)
    assert pairs_of(reachable) == {(0, 3), (2, 0)}
    assert evaluate(scorer, reachable, seen, ks=(2,)).metrics["recall@2"].tolist() == [1.0, 1.0]


def test_filters_restrict_targets_and_not_the_ranking() -> None:
    scorer, targets, seen = by_hand()
    new_item = evaluate(scorer, targets, seen, ks=(1, 2), item_from=3)
    assert new_item.user.tolist() == [0]
    assert [new_item.metrics[f"recall@{k}"].item() for k in (1, 2)] == [0.0, 1.0]
    assert evaluate(scorer, targets, seen, ks=(1,), user_from=1).user.tolist() == [2]


def test_evaluation_asks_for_blocks_within_the_budget_once_per_user() -> None:
    """No |U| x |I| tensor: the largest block is a fraction, and groups do not ask again."""
    stream, scorer = random_stream(0, "within"), Stored(torch.randn(SIZES[2]))
    budget = 3 * 4 * 18 * 4
    groups = evaluate_block(scorer, stream, 2, 2, ks=(5,), budget=budget)
    assert max(scorer.asked) * 3 * 4 <= budget
    assert sum(scorer.asked) == len(groups["all"]) * 18


def test_evaluation_leaves_a_stored_score_matrix_alone() -> None:
    class Whole(Stored):
        def scores(self, user: Tensor) -> Tensor:
            return self.matrix

    scorer = Whole(torch.randn(3, 4))
    before = scorer.matrix.clone()
    evaluate(scorer, events((0, 0), (1, 1), (2, 2)), by_hand()[2], ks=(2,))
    assert torch.equal(scorer.matrix, before)


def test_later_blocks_are_never_read() -> None:
    """Poisons what has not arrived: ids that would raise if they were looked at."""
    stream, scorer = random_stream(3, "within"), Stored(torch.randn(SIZES[1]))
    wrong = events((10**6, 10**6))
    poisoned = (*stream.blocks[:2], Block(2, wrong, wrong, wrong, 20, 18))
    future = Stream(poisoned, stream.users, stream.items)
    for tested in range(2):
        clean, dirty = (evaluate_block(scorer, s, tested, 1, ks=KS) for s in (stream, future))
        assert {n: as_dict(e) for n, e in clean.items()} == {
            n: as_dict(e) for n, e in dirty.items()
        }


def test_a_group_without_users_is_empty_with_nan_means() -> None:
    none = events()
    blocks = (
        Block(0, events((0, 0)), none, none, 1, 2),
        Block(1, none, none, events((0, 1)), 1, 2),
    )
    stream = Stream(blocks, Vocabulary(range(1)), Vocabulary(range(2)))
    groups = evaluate_block(Stored(torch.zeros(1, 2)), stream, 1, 1, ks=(1,))
    assert [len(groups[name]) for name in ("all", "new_users", "new_items")] == [1, 0, 0]
    assert math.isnan(groups["new_items"].mean()["recall@1"])


def test_bad_requests_get_one_sentence() -> None:
    scorer, targets, seen = by_hand()
    with pytest.raises(ValueError, match="evaluation has no test rows"):
        evaluate(scorer, events(), seen)
    with pytest.raises(ValueError, match="'k' is 20, expected 1 to 4, the size of the catalogue"):
        evaluate(scorer, targets, seen, ks=(2, 20))
    for unknown in ((3, 0), (0, 4)):
        with pytest.raises(ValueError, match=r"reach user \d and item \d, the scorer"):
            evaluate(scorer, events(unknown))
    stream = random_stream(0, "next")
    with pytest.raises(ValueError, match="trained on in block 1"):
        evaluate_block(Stored(torch.zeros(SIZES[1])), stream, 0, 1)
    with pytest.raises(ValueError, match="'tested' is 3 and 'learnt' 0, expected 0 to 2"):
        seen_items(stream, tested=3, learnt=0)
