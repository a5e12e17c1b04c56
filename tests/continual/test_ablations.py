from functools import cache

import pytest
import torch
from small_ccd import CONFIG, State, differing, learn, stream, with_settings

from ccdgraph.config import rng
from ccdgraph.continual import CCD, grow, scene
from ccdgraph.continual.known import arrive, parts
from ccdgraph.data.interactions import Interactions
from ccdgraph.nn import MF, MultVAE
from ccdgraph.train import embed

# Settings, and the stage that is the first to end otherwise for them.
SWITCHES = [
    ({"base.negatives": 3}, "0/teacher 0"),
    ({"generation.distill": ()}, "0/generation"),
    ({"generation.distill": ("rrd",)}, "0/generation"),
    ({"generation.list_length": 9}, "0/generation"),
    ({"generation.rest_items": 0}, "0/generation"),
    ({"generation.rest_users": 0}, "0/generation"),
    ({"generation.weight_user": 0.5}, "0/generation"),
    ({"generation.weight_item": 0.5}, "0/generation"),
    ({"generation.exclude_listed": False}, "0/generation"),
    ({"generation.entities": "block"}, "1/generation"),
    ({"generation.start": "previous"}, "1/generation"),
    ({"generation.repeat": False}, "1/generation"),
    ({"generation.into": "tables"}, "0/generation"),
    ({"generation.fit.min_steps": 100}, "0/generation"),
    ({"keep_stability": (0.5,)}, "1/generation"),
    ({"keep_plasticity": (0.5,)}, "1/generation"),
    ({"align": True}, "1/generation"),
    ({"graph": "block"}, "1/student"),
    ({"decay": 0.5}, "1/student"),
    ({"update.init": "random"}, "1/student"),
    ({"update.init": "one-hop"}, "1/student"),
    ({"update.topk": 2}, "1/student"),
    ({"update.updates": 3}, "1/student"),
    ({"update.replay.0.weight": 0.0}, "1/student"),
    ({"update.replay.0.stability": 0}, "1/student"),
    ({"update.replay.0.plasticity": 0}, "1/student"),
    ({"update.replay.0.depth": 5}, "1/student"),
    ({"update.replay.0.sharpness": 10.0}, "1/student"),
    ({"update.replay.0.anneal": 0.1}, "1/student"),
    ({"update.replay.0.redraw": 5}, "1/student"),
    ({"update.replay.0.unseen": False}, "1/student"),
    ({"update.replay.0.temperature": 4.0}, "1/student"),
    ({"teacher.replay.0.unseen": False}, "1/teacher 0"),
    ({"update.exclude_listed": 5}, "1/student"),
    ({"teacher.exclude_listed": 5}, "1/teacher 0"),
    ({"teacher.update": False}, "1/teacher 0"),
    ({"teacher.init": "random"}, "1/teacher 0"),
    ({"teacher.init": "one-hop"}, "1/teacher 0"),
    ({"teacher.topk": 2}, "1/teacher 0"),
    ({"teacher.distill_weight": 0.0}, "1/teacher 0"),
    ({"teacher.personal": False}, "1/teacher 0"),
    ({"teacher.temperature": 1.0}, "1/teacher 0"),
    ({"teacher.mean_degree": 1.0}, "1/teacher 0"),
    ({"teacher.replay.0.weight": 0.0}, "1/teacher 0"),
    ({"teacher.replay.0.stability": 0}, "1/teacher 0"),
    ({"teacher.replay.0.plasticity": 0}, "1/teacher 0"),
    ({"teacher.replay.0.student": 0}, "1/teacher 0"),
    ({"teacher.pseudo_label": 0.9}, "1/teacher 2"),
]
WRITES = {
    "student": ("student/", "knows.student/"),
    "generation": ("student/", "knows.generated/", "knows.stability/", "knows.plasticity/"),
}


@cache
def trace(num_blocks: int = 2) -> dict[str, State]:
    return learn(CONFIG, num_blocks)[1]


def after(changes: dict[str, object], stage: str) -> State:
    return learn(with_settings(changes), int(stage[0]) + 1)[1][stage]


@pytest.mark.parametrize(("changes", "first"), SWITCHES, ids=lambda x: str(x))
def test_a_switch_acts_in_its_stage_and_nowhere_before(changes, first):
    """All stages before end with the same bits; the first that does not writes only its own."""
    other = learn(with_settings(changes), int(first[0]) + 1)[1]
    for stage, state in trace().items():
        if stage == first:
            break
        assert not differing(state, other[stage]), f"{stage} differs"
    changed = differing(trace()[first], other[first])
    name = first.split("/")[1]
    writes = WRITES.get(name, (f"{name.replace(' ', '.')}/",))
    if first == "0/generation":
        writes += ("knows.student/",)
    assert changed and all(key.startswith(writes) for key in changed)


@pytest.mark.parametrize("name", ["stability", "plasticity"])
def test_the_share_of_a_proxy_moves_that_proxy_alone(name):
    changed = differing(after({f"keep_{name}": (0.5,)}, "1/generation"), trace()["1/generation"])
    assert changed == {f"knows.{name}/user", f"knows.{name}/item"}


@pytest.mark.parametrize(
    ("stage", "one", "other"),
    [
        (
            "0/generation",
            {"generation.distill": ()},
            {"generation.weight_user": 0.0, "generation.weight_item": 0.0},
        ),
        ("0/generation", {"generation.distill": ("rrd",)}, {"generation.weight_item": 0.0}),
        (
            "1/student",
            {"update.replay.0.weight": 0.0},
            {"update.replay.0.stability": 0, "update.replay.0.plasticity": 0},
        ),
        (
            "1/teacher 2",
            {"teacher.distill_weight": 0.0},
            {"teacher.distill_weight": 0.0, "teacher.personal": False},
        ),
        ("1/student", {"update.replay.0.sharpness": 0.0}, {"update.replay.0.adaptive": False}),
    ],
    ids=["distill", "item side", "replay", "personal", "adaptive"],
)
def test_two_ways_to_switch_a_part_off_agree(stage, one, other):
    assert not differing(after(one, stage), after(other, stage))


@pytest.mark.parametrize("init", ["two-hop", "two-hop-any", "one-hop", "random"])
@pytest.mark.parametrize("graph", ["cumulative", "block"])
def test_without_epochs_the_student_is_just_grown(graph, init):
    """From all that is known of the new entities' neighbours, whatever models propagate over."""
    changes = {"update.init": init, "update.fit.epochs": 0, "graph": graph}
    learner = CCD(with_settings(changes))
    learner.update(stream()[0])
    start, grown = learner.student, []
    learner.on_stage = lambda: grown.append(learner.student)
    learner.update(stream()[1])
    base = arrive(None, stream()[0], cumulative=True)
    known = arrive(base, stream()[1], cumulative=True)
    generator = rng(0, 1, "student", 0, "grow")
    expected = grow(start, known.history, init=init, topk=5, generator=generator)
    for name in ("user", "item"):
        assert torch.equal(grown[0].get_parameter(name), expected.get_parameter(name))


def test_parts_grow_the_student_step_by_step():
    """Users of a later part start from a student that has grown for the parts before."""
    changes = {"update.updates": 3, "update.fit.epochs": 0}
    learner = CCD(with_settings(changes))
    learner.update(stream()[0])
    model, known, grown = learner.student, learner.known, []
    learner.on_stage = lambda: grown.append(learner.student)
    learner.update(stream()[1])
    for place, part in enumerate(parts(stream()[1], 3, known)):
        known = arrive(known, part, cumulative=True, part=place)
        model = grow(model, known.history, topk=5)
    assert torch.equal(grown[0].user, model.user) and torch.equal(grown[0].item, model.item)


@pytest.mark.parametrize("graph", ["cumulative", "block"])
def test_teachers_that_are_not_updated_keep_every_value_and_get_new_rows(graph):
    learner, states = learn(with_settings({"teacher.update": False, "graph": graph}), 2)
    base, now = states["0/generation"], states["1/generation"]
    for name in (key for key in base if key.startswith("teacher.") and "sizes" not in key):
        assert torch.equal(now[name][: len(base[name])], base[name])
    assert [type(teacher) for teacher in learner.teachers][::2] == [MF, MultVAE]
    assert len(learner.teachers[0].user) == stream()[1].num_users > stream()[0].num_users


def test_the_block_graph_is_what_models_propagate_over():
    learner = CCD(with_settings({"graph": "block"}))
    learner.update(stream()[0])
    served = []
    learner.on_stage = lambda: served.append(embed(learner.student, learner.known.graph))
    learner.update(stream()[1])
    assert len(learner.known.graph.user) < len(learner.known.history.user)
    assert torch.equal(learner.knowledge["student"].user, served[0].user)
    assert torch.equal(learner.knowledge["generated"].user, served[-1].user)


def test_the_mask_of_model_selection_is_that_of_evaluation(monkeypatch):
    """With "strict" all training items so far are hidden, with "block" those of the block."""
    hidden, original = [], scene.Validation
    monkeypatch.setattr(
        scene,
        "Validation",
        lambda rows, seen, **k: hidden.append(seen) or original(rows, seen, **k),
    )
    for mask, blocks in (("strict", (0, 1)), ("block", (1,))):
        learner = CCD(with_settings({"mask": mask}))
        learner.update(stream(valid=True)[0])
        hidden.clear()
        learner.update(stream(valid=True)[1])
        train = Interactions.cat([stream()[b].train for b in blocks])
        assert len(hidden) == 1 + 3 + 1  # the student, teachers and generation
        for seen in hidden:
            keys = torch.unique(train.user * seen.num_items + train.item)
            assert torch.equal(seen.keys(), keys)


def test_the_settings_of_a_block_are_those_of_its_number():
    """Per-block replay settings: the first is for block 1, the last for all that follow."""
    replay = CONFIG.update.replay[0]
    two = with_settings({"update.replay": (replay, with_settings({"weight": 0.0}, replay))})
    off = with_settings({"update.replay": (with_settings({"weight": 0.0}, replay), replay)})
    states = learn(two)[1]
    assert not differing(states["1/generation"], trace(3)["1/generation"])
    assert differing(states["2/student"], trace(3)["2/student"])
    assert differing(learn(off, 2)[1]["1/student"], trace()["1/student"])
