import pytest
import torch
from small_ccd import CONFIG, REPLAY, differing, learn, stream, with_settings

from ccdgraph.continual import CCD, scene, stages
from ccdgraph.continual.config import ReplayConfig
from ccdgraph.distill import knowledge

SAMPLED = with_settings(
    {
        "generation.users": 12,
        "update.replay": (ReplayConfig(**{**vars(REPLAY), "users": 9}),),
        "teacher.replay": (ReplayConfig(**{**vars(REPLAY), "users": 9}),),
        "valid_users": 7,
    }
)


@pytest.fixture
def asked(monkeypatch) -> dict[str, list[int]]:
    """How many users each costly function was asked about, by its name."""
    found: dict[str, list[int]] = {"lists": [], "memory": [], "valid": []}
    lists, memorise, validation = knowledge.teacher_lists, stages.memorise, scene.Validation

    def counted_lists(teacher, seen, *, user, **options):
        found["lists"].append(seen.num_users if user is None else len(user))
        return lists(teacher, seen, user=user, **options)

    def counted_memory(*args, **options):
        memory = memorise(*args, **options)
        found["memory"].append(len(memory.user))
        return memory

    def counted_validation(valid, *args, **options):
        found["valid"].append(len(valid.user.unique()))
        return validation(valid, *args, **options)

    monkeypatch.setattr(knowledge, "teacher_lists", counted_lists)
    monkeypatch.setattr(stages, "memorise", counted_memory)
    monkeypatch.setattr(scene, "Validation", counted_validation)
    return found


def test_a_stream_is_learnt_with_samples_of_users(asked):
    learner = CCD(SAMPLED)
    for block in stream(valid=True).blocks[:2]:
        learner.update(block)
    assert set(asked["lists"]) == {12}
    assert asked["memory"] and max(asked["memory"]) <= 9
    assert asked["valid"] and max(asked["valid"]) <= 7
    assert all(torch.isfinite(value).all() for value in learner.state().values())


def test_without_a_number_everyone_is_asked(asked):
    learner = CCD(CONFIG)
    block = stream(valid=True)[0]
    learner.update(block)
    assert asked["lists"] == [block.num_users]
    assert max(asked["valid"]) == len(block.valid.user.unique())


def test_a_sample_as_large_as_all_changes_nothing():
    same = with_settings({"valid_users": 10**6, "update.replay.0.users": 10**6})
    assert not differing(learn(CONFIG, 2)[0].state(), learn(same, 2)[0].state())
