import itertools
import math
from dataclasses import replace

import pytest
import torch
from small_learner import LEARNING, SMALL, check, every_setting, learn, planted, recall, small
from torch import Tensor

from ccdgraph.config import rng
from ccdgraph.continual import ADER, ADERConfig, FineTune, FineTuneConfig
from ccdgraph.continual.ader import OldDistribution, exemplars, shares
from ccdgraph.continual.scene import Scene
from ccdgraph.nn import BackboneConfig, Embeddings
from ccdgraph.sampling import Entities
from ccdgraph.testing import check_term


@every_setting
def test_keeps_the_contract(settings):
    check(lambda c: ADER(ADERConfig(**c, memory=100), seed=3), settings)


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"weight": -1.0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="keeps at least 1 exemplar"):
        ADERConfig(**wrong)


def random_out(num_users: int, num_items: int, seed: int, **options) -> Embeddings:
    generator = rng("ader", seed)
    sizes = (num_users, num_items)
    return Embeddings(*(torch.randn(n, 3, generator=generator, **options) for n in sizes))


def test_distillation_equals_a_loop_over_the_equation():
    """A user that comes twice counts twice; the item that is new takes no part."""
    old, out = (random_out(3, 4, 0, dtype=torch.float64), random_out(5, 5, 1, dtype=torch.float64))
    expected = 0.0
    for user in (2, 0, 2):
        before = [math.exp(float(old.user[user] @ h)) for h in old.item]
        now = [math.exp(float(out.user[user] @ h)) for h in out.item[:4]]
        pairs = zip(before, now, strict=True)
        expected -= sum(b / sum(before) * math.log(n / sum(now)) for b, n in pairs)
    loss = OldDistribution(old)(out, Entities(torch.tensor([2, 0, 2])))
    assert float(loss) == pytest.approx(expected)


def test_distillation_by_hand_and_empty():
    """Old scores 0 and ln 3, so 1/4 and 3/4; new scores equal: the cross-entropy is ln 2."""
    old = Embeddings(torch.ones(1, 1), torch.tensor([[0.0], [math.log(3)]]))
    out = Embeddings(torch.ones(1, 1), torch.zeros(2, 1))
    term = OldDistribution(old)
    assert float(term(out, Entities(torch.tensor([0])))) == pytest.approx(math.log(2))
    assert float(term(out, Entities(torch.tensor([], dtype=torch.int64)))) == 0.0


def test_distillation_is_a_term():
    old = random_out(3, 4, 0)
    frozen = [old.user.requires_grad_(), old.item.requires_grad_()]
    term = OldDistribution(Embeddings(*frozen))
    check_term(term, random_out(5, 5, 1), Entities(torch.tensor([2, 0, 2])), frozen=frozen)


def test_the_distillation_acts_from_the_second_step_of_a_block_on():
    """Where the model starts the distributions are one, so a block of one step is fine-tuning.

    Mutation: the distillation is never added to the loss of a block.
    """
    start = random_out(4, 5, 0, dtype=torch.float64)
    user = start.user.clone().requires_grad_()
    pull = OldDistribution(start)(Embeddings(user, start.item), Entities(torch.arange(4)))
    (gradient,) = torch.autograd.grad(pull, user)
    assert gradient.abs().max() < 1e-12
    block = replace(small()[1], valid=small()[1].valid[:0])  # nothing to select an epoch by
    options = SMALL | {"fit": replace(SMALL["fit"], max_steps=1), "backbone": BackboneConfig("MF")}
    learners = [ADER(ADERConfig(**options)), FineTune(FineTuneConfig(**options))]
    for learner in learners:
        learn(learner, [small()[0], block])
    gap = learners[0].served.user - learners[1].served.user
    assert gap[block.train.user.unique()].abs().max() > 1e-3  # after two steps


def test_shares_are_whole_proportional_and_possible():
    for count, size in (([3, 3, 3], 5), ([100, 1, 7, 0], 11), ([2, 2], 9), ([1] * 10, 3)):
        found = shares(torch.tensor(count), size)
        assert int(found.sum()) == min(size, sum(count))
        for own, all_ in zip(found.tolist(), count, strict=True):
            assert abs(own - all_ * min(size, sum(count)) / sum(count)) < 1 and own <= all_
    assert shares(torch.tensor([1] * 4), 2).tolist() == [1, 1, 0, 0]


def naive_herding(feature: Tensor, item: Tensor, size: int) -> list[int]:
    unit = feature / feature.norm(dim=1, keepdim=True)
    kinds = sorted(set(item.tolist()))
    wanted = shares(torch.tensor([item.tolist().count(kind) for kind in kinds]), size)
    picked: list[int] = []
    for kind, num in zip(kinds, wanted.tolist(), strict=True):
        members = [n for n, i in enumerate(item.tolist()) if i == kind]
        mean, own = unit[members].mean(0), []
        for _ in range(num):
            left = [n for n in members if n not in own]
            cost = [float((mean - unit[[*own, n]].mean(0)).square().sum()) for n in left]
            own.append(left[cost.index(min(cost))])
        picked += own
    return sorted(picked)


@pytest.mark.parametrize("size", [1, 7, 20, 60, 100])
def test_exemplars_equal_a_loop_that_herds_each_item(size):
    generator = rng("herding", size)
    item = torch.randint(9, (60,), generator=generator) * 3
    feature = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    assert exemplars(feature, item, size).tolist() == naive_herding(feature, item, size)


def test_of_equal_rows_the_first_is_picked():
    found = exemplars(torch.ones(6, 2), torch.tensor([1, 1, 1, 4, 4, 4]), 4)
    assert found.tolist() == [0, 1, 3, 4]


def test_the_weight_adapts_to_items_and_rows():
    learner = ADER(ADERConfig(**SMALL | {"memory": 50, "weight": 0.8}))
    learner.update(small()[0])
    block, known = small()[1], learner._arrive(learner.known, small()[1])
    (part,) = learner.parts(Scene(block, known, None, (0,)), learner.model)
    ratio = small()[0].num_items / block.num_items * 50 / len(block.train)
    assert part.weight == pytest.approx(0.8 * math.sqrt(ratio))


def test_exemplars_are_of_the_past_and_never_more():
    learner = ADER(ADERConfig(**SMALL | {"memory": 30, "fit": replace(SMALL["fit"], epochs=1)}))
    seen: set[tuple[int, int]] = set()
    for block in itertools.islice(itertools.cycle(small()), 3):
        learner.update(block)
        seen |= set(zip(block.train.user.tolist(), block.train.item.tolist(), strict=True))
        kept = list(zip(*(learner.memory[k].tolist() for k in ("user", "item")), strict=True))
        assert len(kept) == 30 and set(kept) <= seen
    assert set(learner.memory) == {"user", "item"}


def test_a_weight_of_nought_is_fine_tuning():
    silent = learn(ADER(ADERConfig(weight=0.0, **SMALL)), small())
    plain = learn(FineTune(FineTuneConfig(**SMALL)), small())
    assert torch.equal(silent.served.item, plain.served.item)


def test_keeps_what_fine_tuning_forgets(monkeypatch):
    """Mutations: no distillation; and a teacher whose users are mixed up."""
    options = {"weight": 5.0}
    (kept,) = recall(ADER(ADERConfig(**LEARNING, **options)), planted(), 0)
    (lost,) = recall(FineTune(FineTuneConfig(**LEARNING)), planted(), 0)
    whole = OldDistribution.__init__

    def mixed(self, old: Embeddings) -> None:
        order = torch.randperm(old.num_users, generator=rng("mixed"))
        whole(self, Embeddings(old.user[order], old.item))

    monkeypatch.setattr(OldDistribution, "__init__", mixed)
    (wrong,) = recall(ADER(ADERConfig(**LEARNING, **options)), planted(), 0)
    assert kept > lost + 0.2 and kept > wrong + 0.2
