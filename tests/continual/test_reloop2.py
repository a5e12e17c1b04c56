import math
from dataclasses import replace

import pytest
import torch
from small_learner import LEARNING, SMALL, check, every_setting, learn, planted, recall, small
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual import FineTune, FineTuneConfig, ReLoop2, ReLoop2Config
from ccdgraph.continual.reloop2 import Corrected
from ccdgraph.nn import Embeddings


@every_setting
def test_keeps_the_contract(settings):
    check(lambda c: ReLoop2(ReLoop2Config(**c, memory=100), seed=3), settings)


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"temperature": 0.01}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="keeps at least 1 error"):
        ReLoop2Config(**wrong)


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def test_scores_equal_a_loop_over_the_equation():
    generator = rng("reloop2")
    tables = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4, 5))
    out = Embeddings(*tables)
    user, item = torch.tensor([0, 3, 3, 1, 2, 0]), torch.tensor([1, 1, 4, 0, 2, 1])
    error = torch.rand(6, generator=generator, dtype=torch.float64) * 2 - 1
    scorer = Corrected(out, user, item, error, share=0.7, temperature=0.3)
    assert (scorer.num_users, scorer.num_items) == (4, 5)
    asked = torch.tensor([3, 0, 3])
    found = scorer.scores(asked)
    for row, u in enumerate(asked.tolist()):
        for i in range(5):
            kernel = [
                math.exp(
                    (cosine(out.user[u], out.user[a]) + cosine(out.item[i], out.item[b])) / 0.3
                )
                for a, b in zip(user.tolist(), item.tolist(), strict=True)
            ]
            expected = sum(k * e for k, e in zip(kernel, error.tolist(), strict=True)) / sum(kernel)
            plain = 1 / (1 + math.exp(-float(out.user[u] @ out.item[i])))
            assert float(found[row, i]) == pytest.approx(plain + 0.7 * expected)


def test_one_error_is_expected_everywhere_and_opposites_stay_finite():
    """A weighted mean of one error is that error, however far away it is."""
    for table in (torch.tensor([[1.0], [-1.0]]), torch.zeros(2, 1)):
        out = Embeddings(table, table)
        one = torch.tensor([0])
        scorer = Corrected(out, one, one, torch.tensor([0.25]), share=1.0, temperature=0.05)
        gap = scorer.scores(torch.arange(2)) - out.scores(torch.arange(2)).sigmoid()
        torch.testing.assert_close(gap, torch.full((2, 2), 0.25))


def test_errors_are_labels_minus_probabilities_newest_last():
    learner = ReLoop2(ReLoop2Config(**SMALL | {"memory": 30}))
    for block in small():
        learner.update(block)
        user, item, error = (learner.memory[name] for name in ("user", "item", "error"))
        assert len(user) == len(item) == len(error) == 30
        assert torch.equal(user[0::2], block.train.user[-15:])
        assert torch.equal(item[0::2], block.train.item[-15:])
        probability = learner.served.out.pairs(user, item).sigmoid()
        torch.testing.assert_close(error, torch.tensor([1.0, 0.0]).repeat(15) - probability)
        seen = set(
            zip(
                learner.known.history.user.tolist(),
                learner.known.history.item.tolist(),
                strict=True,
            )
        )
        assert torch.equal(user[1::2], user[0::2])
        assert not seen & set(zip(user[1::2].tolist(), item[1::2].tolist(), strict=True))


def test_older_errors_stay_while_there_is_room_and_never_more():
    learner = ReLoop2(
        ReLoop2Config(**SMALL | {"memory": 1500, "fit": replace(SMALL["fit"], epochs=1)})
    )
    sizes, rows = [], 0
    for index in range(6):
        block = replace(small()[index % 3], index=index, num_users=60, num_items=50)
        before = learner.memory.get("error", torch.zeros(0))
        learner.update(block)
        rows = min(rows + 2 * len(block.train), 1500)
        sizes.append(len(learner.memory["error"]))
        assert sizes[-1] == rows
        kept = rows - 2 * len(block.train)
        assert torch.equal(learner.memory["error"][:kept], before[len(before) - kept :])
    assert sizes[-1] == 1500


def test_a_share_of_nought_ranks_as_fine_tuning():
    silent = learn(ReLoop2(ReLoop2Config(share=0.0, **SMALL)), small())
    plain = learn(FineTune(FineTuneConfig(**SMALL)), small())
    user = torch.arange(small()[2].num_users)
    assert torch.equal(silent.served.scores(user), plain.served.scores(user).sigmoid())


def test_the_memory_follows_a_drift_that_the_model_does_not():
    """The model rests from block 1 on, so the memory alone knows the new block.

    Mutations: no correction; and one that is subtracted, which is worse than none.
    """
    resting = LEARNING | {"fit": replace(LEARNING["fit"], epochs=0)}
    right, none, wrong = (
        recall(ReLoop2(ReLoop2Config(share=share, **resting)), planted(), 2)[0]
        for share in (1.0, 0.0, -1.0)
    )
    assert right > none + 0.3 and right > wrong + 0.3


def test_chunks_of_items_change_nothing(monkeypatch):
    learner = learn(ReLoop2(ReLoop2Config(**SMALL)), small())
    user = torch.arange(small()[2].num_users)
    whole = learner.served.scores(user)
    monkeypatch.setattr("ccdgraph.continual.reloop2._CHUNK", 7)
    torch.testing.assert_close(learner.served.scores(user), whole)
