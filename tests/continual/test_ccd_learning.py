"""What CCD's parts are for, on planted streams with bounds that broken parts miss."""

from functools import cache

import torch
from small_ccd import with_settings

from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.continual.config import (
    BaseConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.stream import Stream
from ccdgraph.distill import knowledge
from ccdgraph.distill.teacher import TeacherLists, teacher_lists
from ccdgraph.evaluate import evaluate_block
from ccdgraph.nn import BackboneConfig
from ccdgraph.train import FitConfig

REPLAY = (ReplayConfig(depth=20),)
CONFIG = CCDConfig(
    student=BackboneConfig("MF", 8),
    teachers=(BackboneConfig(dim=16),) * 2,
    base=BaseConfig(batch_size=256, fit=FitConfig(15, 1e-2, 0.0)),
    generation=GenerationConfig(
        list_length=20,
        rest_items=0,
        rest_users=0,
        weight_user=0.1,
        weight_item=0.1,
        batch_size=256,
        fit=FitConfig(8, 1e-2, 0.0),
    ),
    update=StudentConfig(replay=REPLAY, batch_size=256, fit=FitConfig(4, 5e-3, 0.0)),
    teacher=TeacherConfig(replay=REPLAY, batch_size=256, fit=FitConfig(4, 5e-3, 0.0)),
)


@cache
def planted(drift: float) -> Stream:
    """Six communities; with a drift of 1 everybody changes groups with every block."""
    return synthetic_stream(
        200, 150, 5000, num_blocks=2, num_communities=6, affinity=0.95, drift=drift
    )


def recall(changes: dict, *cells: tuple[str, int, str], drift: float = 0.0) -> list[float]:
    """Recall@20 after the last block of (scorer, tested block, group)."""
    stream, learner = planted(drift), CCD(with_settings(changes, CONFIG))
    for block in stream:
        learner.update(block)
    scorers = learner.scorers()
    return [
        evaluate_block(scorers[name], stream, tested, 2, ks=(20,))[group].mean()["recall@20"]
        for name, tested, group in cells
    ]


def test_the_distilled_student_knows_what_the_teachers_know(monkeypatch):
    """It is trained on the last block's interactions alone, yet serves older blocks as well.

    Mutations: without distillation, or with the teachers' lists handed to other users and items
    (a wrong row of lists, an item id taken for a user id), recall on the base block is below .4.
    """
    cells = [("generated", tested, "all") for tested in range(3)]
    distilled = recall({}, *cells)
    alone = recall({"generation.distill": ()}, *cells)
    generator = torch.Generator().manual_seed(0)

    def shuffled(*args, **options) -> TeacherLists:
        lists = teacher_lists(*args, **options)
        return TeacherLists(
            lists.items[torch.randperm(len(lists.items), generator=generator)],
            lists.users[torch.randperm(len(lists.users), generator=generator)],
        )

    monkeypatch.setattr(knowledge, "teacher_lists", shuffled)
    wrong = recall({}, *cells)
    for mutation in (alone, wrong):
        assert all(a > b + 0.3 for a, b in zip(distilled, mutation, strict=True))
    assert min(distilled) > 0.75


def test_new_users_are_served_from_the_start():
    """After one short epoch; mutation: random rows for new entities, recall below .4."""
    short = {"update.fit.epochs": 1, "update.fit.lr": 1e-3, "update.replay.0.weight": 0.0}
    short |= {"generation.fit.epochs": 4, "teacher.update": False}
    cell = ("student", 2, "new_users")
    two, one, random = (
        recall(short | {"update.init": init}, cell)[0] for init in ("two-hop", "one-hop", "random")
    )
    assert min(one, two) > 0.65 and min(one, two) > random + 0.3


def test_replay_keeps_the_student_from_forgetting():
    """Everybody changes groups twice; mutation: no replay, recall of the base block below .15."""
    long = {"update.fit.epochs": 20, "update.fit.lr": 1e-2, "keep_stability": (1.0,)}
    long |= {"teacher.update": False}
    long |= {"update.replay.0.stability": 10, "update.replay.0.anneal": 100.0}
    cell = ("student", 0, "all")
    (replayed,) = recall(long, cell, drift=1.0)
    (forgotten,) = recall(long | {"update.replay.0.weight": 0.0}, cell, drift=1.0)
    assert replayed > forgotten + 0.15


def test_lwckd_keeps_a_teacher_from_forgetting():
    """Mutations: no LWC-KD, or contrast with the old neighbours of other entities."""
    long = {"teacher.fit.epochs": 20, "teacher.fit.lr": 1e-2, "teacher.replay.0.weight": 0.0}
    long |= {"teachers": (BackboneConfig("MF", 16),), "teacher.temperature": 1.0}
    long |= {"generation.fit.epochs": 1, "update.fit.epochs": 1}
    cell = ("teacher", 0, "all")
    (kept,) = recall(long | {"teacher.distill_weight": 100.0}, cell, drift=1.0)
    (forgotten,) = recall(long | {"teacher.distill_weight": 0.0}, cell, drift=1.0)
    assert kept > forgotten + 0.2
