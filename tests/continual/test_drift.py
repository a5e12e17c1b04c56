import math
import statistics

import pytest
import torch
from scipy import stats
from small_ccd import CONFIG, stream

from ccdgraph.config import from_dict
from ccdgraph.continual import CCD, AdaptiveCCD, AdaptiveConfig
from ccdgraph.continual.drift import (
    Action,
    Detector,
    Event,
    above_interval,
    adapted,
    alarm_in_last,
    detect,
    step_up,
)
from ccdgraph.data import synthetic_stream
from ccdgraph.testing import check_strategy

SIGNALS = ("miss", "rank", "loss", "popularity", "disagreement", "new")
EVERYTHING = tuple(Detector(signal, alpha=0.4) for signal in SIGNALS)
REACT = (
    Action("update-teacher"),
    Action("raise-plasticity", factor=2.0),
    Action("shrink-replay", factor=4.0),
    Action("train-longer", factor=3.0),
)


def test_interval_by_hand():
    """Mean 2, deviation 1, n = 3: the bound is 2 + 2.920 * sqrt(4/3) = 5.372 at alpha .05."""
    assert not above_interval([1.0, 2.0, 3.0, 5.36], 0.05)
    assert above_interval([1.0, 2.0, 3.0, 5.38], 0.05)
    assert not above_interval([1.0, 2.0, 9.0], 0.05)  # two earlier values are too few


@pytest.mark.parametrize("n", [3, 8])
def test_false_alarms_of_the_interval_are_as_many_as_promised(n):
    draws = torch.randn(20_000, n + 1, generator=torch.Generator().manual_seed(n)).tolist()
    share = statistics.mean(above_interval(values, 0.05) for values in draws)
    assert share == pytest.approx(0.05, abs=0.006)


def test_step_by_hand():
    """Means 4 and 1, squared errors 1/3 and 0.8/6, with Welch's degrees of freedom."""
    before, newest = [[9.0] * 6, [0.0, 1.0], [2.0, 1.0, 0.0, 2.0]], [3.0, 4.0, 5.0]
    error = 0.8 / 6
    degrees = (1 / 3 + error) ** 2 / ((1 / 3) ** 2 / 2 + error**2 / 5)
    p = float(stats.t.sf(3 / math.sqrt(1 / 3 + error), degrees))
    own = stats.ttest_ind(newest, before[1] + before[2], equal_var=False, alternative="greater")
    assert p == pytest.approx(float(own.pvalue))
    assert step_up([*before, newest], p * 1.01, 2) and not step_up([*before, newest], p * 0.99, 2)
    assert not step_up([before[0], *before, newest], 0.3, 3)  # the first blocks are far above


def test_step_where_nothing_varies_or_little_is_known():
    first = [5.0, 0.0]
    assert step_up([first, [1.0, 1.0], [2.0, 2.0]], 0.01, 1)
    assert not step_up([first, [1.0, 1.0], [1.0, 1.0]], 0.01, 1)
    assert not step_up([first, [1.0, 1.0], [2.0]], 0.01, 1)
    assert not step_up([[1.0, 1.0], [2.0, 2.0]], 0.01, 1)  # still settling


def test_false_alarms_of_the_step_are_as_many_as_promised():
    draws = torch.randn(5_000, 4, 20, generator=torch.Generator().manual_seed(0)).tolist()
    assert statistics.mean(step_up(s, 0.05, 2) for s in draws) == pytest.approx(0.05, abs=0.01)


def test_a_slow_trend_is_a_step_only_to_far_back_blocks():
    """What students forget little by little is no drift; against all blocks it would be."""
    noise = torch.randn(10, 20, generator=torch.Generator().manual_seed(1)) * 0.1
    series = (noise + 0.02 * torch.arange(10.0).unsqueeze(1)).tolist()
    assert not step_up(series, 0.01, 2) and step_up(series, 0.01, 8)


def test_a_jump_is_found_within_a_block_and_none_before():
    pytest.importorskip("river", reason="needs the extra 'drift'")
    noise = (0.02 * torch.randn(12, 20, generator=torch.Generator().manual_seed(0))).tolist()
    series = [[0.5 + 0.3 * (b >= 8) + x for x in row] for b, row in enumerate(noise)]
    for method, delay in (("interval", 0), ("step", 0), ("adwin", 1), ("page-hinkley", 0)):
        detector = Detector("miss", method, threshold=0.5)
        alarms = [b for b in range(12) if detect(detector, series[: b + 1])]
        assert alarms[0] == 8 + delay, (method, alarms)
    falling = [[-value for value in row] for row in series]
    assert not any(detect(Detector("miss", "adwin"), falling[: b + 1]) for b in range(12))


def test_blocks_without_a_value_raise_nothing():
    assert detect(Detector(), [[0.1], [0.1], [0.1], [0.2], []]) is None
    assert detect(Detector(), [[0.1]]) is None
    assert detect(Detector(), [[], [0.1], [0.12], [0.11], [0.9]]) == (0.9, pytest.approx(0.11))


def test_without_river_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "river", None)
    with pytest.raises(ValueError, match=r"'adwin' needs river; install ccdgraph\[drift\]"):
        alarm_in_last(Detector("miss", "adwin"), [[0.1]])


def test_actions_change_what_they_say_and_nothing_else():
    replay = CONFIG.update.replay[0]
    event = Event(3, "miss", "interval", 0.9, 0.5)
    assert adapted(CONFIG, 3, [], REACT) == CONFIG
    assert adapted(CONFIG, 3, [event], [Action("shrink-replay", "popularity")]) == CONFIG
    found = adapted(CONFIG, 3, [event], REACT)
    for stage in (found.update, found.teacher):
        assert stage.replay[0].weight == replay.weight / 4
        assert stage.replay[0].plasticity == 2 * replay.plasticity
        assert stage.replay[0].stability == round(replay.stability / 2)
        assert stage.replay[0].student == replay.student
    assert found.update.fit.epochs == 3 * CONFIG.update.fit.epochs
    assert found.teacher.fit.epochs == 3 * CONFIG.teacher.fit.epochs
    assert found.teacher.update and found.generation == CONFIG.generation


def test_an_action_holds_for_its_blocks_and_no_longer():
    """With ``<=`` in place of ``<`` block 5 fails; without the lower bound block 2 does."""
    event, action = Event(3, "miss", "step", 0.9, 0.5), Action("train-longer", hold=2)
    longer = [adapted(CONFIG, b, [event], [action]) != CONFIG for b in (2, 3, 4, 5)]
    assert longer == [False, True, True, False]


@pytest.mark.parametrize(
    ("cls", "table", "message"),
    [
        (Detector, {"signal": "new", "method": "adwin"}, "one number a block; use 'interval'"),
        (Detector, {"signal": "new", "method": "step"}, "one number a block; use 'interval'"),
        (Detector, {"alpha": 0.7}, "'alpha' is 0.7"),
        (Detector, {"back": 0}, "'back' is 0"),
        (Action, {"do": "shrink-replay", "factor": 0.5}, "'factor' is 0.5"),
        (Action, {"do": "train-longer", "hold": 0}, "'hold' is 0"),
        (Action, {"do": "panic"}, "expected one of 'update-teacher'"),
        (AdaptiveConfig, {"window": 0}, "'window' is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(cls, table, message):
    with pytest.raises(ValueError, match=message):
        from_dict(cls, table)


def test_nothing_watched_is_ccd_to_the_bit():
    plain, adaptive = CCD(CONFIG), AdaptiveCCD(AdaptiveConfig(CONFIG, ()))
    for block in stream():
        plain.update(block)
        adaptive.update(block)
    own, other = plain.state(), adaptive.state()
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def test_contract_of_the_strategy():
    """Signals, events and what they change are reproducible, blind and resumable."""
    config = AdaptiveConfig(CONFIG, EVERYTHING, REACT, teacher_every=3, window=16, k=5)
    whole = synthetic_stream(60, 50, 900, num_blocks=4, num_communities=5, base=0.3)
    check_strategy(lambda _: AdaptiveCCD(config), whole)
    learner = AdaptiveCCD(config)
    for block in whole:
        learner.update(block)
    assert learner.events  # at alpha .4 something happens, or nothing was checked
    assert {len(blocks) for blocks in learner.series.values()} == {4}


def test_teachers_learn_in_their_turn_and_when_they_are_called():
    called = {1: Event(1, "miss", "interval", math.nan, math.nan)}
    for event, learns in ((None, [False, True, False, True]), (called, [True, True, False, True])):
        learner = AdaptiveCCD(AdaptiveConfig(CONFIG, (), (Action("update-teacher"),), 2))
        learner.events = list((event or {}).values())
        assert [learner._settings(block).teacher.update for block in range(1, 5)] == learns
