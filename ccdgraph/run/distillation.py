"""Static distillation: teachers, the student alone, the student taught, and what came of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccdgraph import checkpoint
from ccdgraph.config import load
from ccdgraph.data import Stream, fingerprint
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.distill import Ensemble, Trajectories, agreement, linear_cka
from ccdgraph.distill.knowledge import Knowledge
from ccdgraph.distill.labels import identity, labels_of
from ccdgraph.distill.methods import build_parts, check_student
from ccdgraph.distill.trajectory import Snapshots
from ccdgraph.nn import Embeddings
from ccdgraph.ranking import Scorer
from ccdgraph.run import folder as files
from ccdgraph.run.distill_config import DistillConfig, Learner
from ccdgraph.run.distilled import Distilled, write_results
from ccdgraph.run.learner import pick_device
from ccdgraph.run.lesson import Room, Trained, store, take, train
from ccdgraph.run.plain import plain_dict
from ccdgraph.run.plan import Watcher
from ccdgraph.run.protocol import Ruler
from ccdgraph.run.source import open_stream

logger = logging.getLogger(__name__)


def distill(
    config: DistillConfig,
    folder: str | Path,
    *,
    stream: Stream | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Distilled:
    """Train teachers and student on one block, measure them, and leave everything in ``folder``.

    Every model is stored when it is trained; called again with ``resume``, those are not trained
    again.

    Args:
        config: what to do.
        folder: where the files go; new or empty unless ``resume``.
        stream: the data, instead of ``config.data``; its first block is used.
        resume: go on with what is in ``folder``.
        watcher: is told how far it is.

    Raises:
        ValueError: the configuration, the data or a folder cannot be used.
    """
    stream = open_stream(replace(config.data, max_blocks=1)) if stream is None else stream
    return _Distillation(config, Path(folder), stream, watcher or Watcher(), resume).finish()


class _Distillation:
    """A distillation in progress."""

    def __init__(
        self, config: DistillConfig, folder: Path, stream: Stream, watcher: Watcher, resume: bool
    ) -> None:
        self.config, self.folder, self.stream, self.watcher = config, folder, stream, watcher
        check_student(config.distill, config.student.model)
        device, mark = pick_device(config.device), fingerprint(stream)
        block = stream[0].to(device)
        graph = BipartiteGraph.from_interactions(block.train, block.num_users, block.num_items)
        ruler = Ruler(block, config.measure)
        if len(block.valid) == 0 and config.measure.select != "last":
            raise ValueError(f"'{stream.name}' has no validation rows; set measure.select = 'last'")
        self.room = Room(block, graph, ruler, config.seed, mark, self._epoch)
        self.notes: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self.labels: dict[str, Any] = {}
        files.open_folder(folder, config, mark, resume=resume)

    def finish(self) -> Distilled:
        """Train and measure what is left."""
        config, found = self.config, {}
        teachers = self._teachers()
        teacher = self._ensemble(teachers)
        if config.reference:
            self._learn("reference", config.student, partial(self._train, "reference", None))
        self._compare(teacher)
        known = self._knowledge(teacher, teachers)
        make = partial(self._train, "student", known)
        student = self._learn("student", config.student, make)
        if teacher is not None:
            found = self._agreement(student.out, teacher)
        files.write_served(self.folder, student.out, self._placed(), 0)
        result = Distilled(config, self.notes, found, tuple(self.warnings), self.labels)
        write_results(self.folder, result, self.stream, self.room)
        return result

    def _teachers(self) -> list[Trained]:
        """Trained here, or taken over."""
        source = self.config.teachers_from
        if source is None:
            pairs = enumerate(self.config.teachers)
            return [
                self._learn(f"teacher {m}", own, partial(self._train_teacher, m, own))
                for m, own in pairs
            ]
        begun = load(DistillConfig, Path(source) / files.CONFIG)
        names = [f"teacher {m}" for m in range(len(begun.teachers))]
        if not names:
            raise ValueError(f"'{source}' trained no teachers; name the folder that did")
        found = [take(Path(source) / name, self.room) for name in names]
        self.notes |= {name: one.notes for name, one in zip(names, found, strict=True)}
        return found

    def _train_teacher(self, member: int, learner: Learner) -> Trained:
        room, use = self.room, f"teacher {member}"
        model = room.build(learner, use)
        watch = None
        if self.config.trajectory:
            watch = Snapshots(room.graph.user_items, num=self.config.trajectory)
        part = room.interactions(model, learner, use, 1.0)
        return train(room, learner, use, model, [part], watch)

    def _train(self, label: str, known: Knowledge | None) -> Trained:
        """The student, from the same initial values whoever teaches it."""
        config, room, own = self.config, self.room, self.config.student
        model, weight = room.build(own, "student"), config.base_weight
        taught = known is not None
        part = room.interactions(model, own, "student", weight if taught else 1.0)
        parts = build_parts(config.distill, known, config.methods) if known is not None else []
        return train(room, own, label, model, [part, *parts])

    def _learn(self, name: str, learner: Learner, make: Callable[[], Trained]) -> Trained:
        """A model that is stored already, or made and stored."""
        place = self.folder / name
        if checkpoint.exists(place):
            trained = take(place, self.room)
        else:
            trained = make()
            store(place, self.room, learner, trained)
            seconds = trained.notes["seconds_per_epoch"] * trained.notes["epochs"]
            self.watcher.stage(f"block 0 {name}", seconds)
        self.notes[name] = trained.notes
        return trained

    def _ensemble(self, teachers: list[Trained]) -> Scorer | None:
        if not teachers:
            return None
        if len(teachers) == 1:
            self.notes["teacher"] = {"metrics": teachers[0].notes["metrics"]}
            return teachers[0].out
        ensemble = Ensemble([one.out for one in teachers])
        self.notes["teacher"] = self._measured() or {
            "metrics": {s: self.room.ruler.measure(ensemble, s) for s in ("valid", "test")}
        }
        return ensemble

    def _measured(self) -> dict[str, Any] | None:
        """What the folder that trained the teachers says of the ensemble, measured alike."""
        source = self.config.teachers_from
        about = files.read_about(Path(source)) if source is not None else {}
        alike = about and about["config"]["measure"] == plain_dict(self.config.measure)
        return about["models"]["teacher"] if alike else None

    def _compare(self, teacher: Scorer | None) -> None:
        """Warn of a teacher that has nothing to teach, before anything is distilled."""
        if teacher is None or "reference" not in self.notes:
            return
        name = self.config.measure.headline
        ours, theirs = (
            self.notes[model]["metrics"]["valid"].get(name, math.nan)
            for model in ("reference", "teacher")
        )
        if theirs <= ours:
            self._warn(
                f"the teacher's validation {name} is {theirs:.4f}, the student's alone "
                f"{ours:.4f}; train a better teacher before distilling"
            )

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        logger.warning("%s: %s", self.folder, message)

    def _knowledge(self, teacher: Scorer | None, teachers: list[Trained]) -> Knowledge:
        room, own = self.room, self.config.student
        model = room.build(own, "student")
        lists = [one.lists for one in teachers if one.lists is not None]
        kept = bool(lists) and len(lists) == len(teachers)
        along = Trajectories.of_lists(torch.stack(lists)) if kept else None
        return Knowledge(
            teacher,
            room.graph.user_items,
            dim=model.train(False)(room.graph).user.size(1),
            rng=partial(room.rng, "student"),
            batch_size=own.batch_size,
            trajectories=along,
            stored=self._stored(),
        )

    def _stored(self) -> tuple[Tensor, Tensor] | None:
        """Lists of one teacher version in a label store, and a note of whom they cover."""
        source, room = self.config.lists_from, self.room
        if source is None:
            return None
        labels = labels_of(source, 0, self.config.lists_version, data=identity(self.stream))
        covered = labels.coverage(room.block.train.user.unique())
        self.labels = {"version": labels.version, "coverage": covered}
        if covered < 1:
            self._warn(
                f"{1 - covered:.1%} of the users have no label of '{labels.version}'; they learn "
                "from their interactions alone"
            )
        score, item = labels.lists(torch.arange(self.stream[0].num_users))
        return score.to(room.graph.device), item.to(room.graph.device)

    def _agreement(self, student: Embeddings, teacher: Scorer) -> dict[str, float]:
        seen = self.room.graph.user_items
        near = agreement(student, teacher, seen, k=min(20, seen.num_items))
        found = {"overlap@20": near.overlap, "kendall_tau@20": near.kendall_tau}
        members = teacher.members if isinstance(teacher, Ensemble) else [teacher]
        if any(isinstance(one, Embeddings) and one.network for one in (student, *members)):
            return found  # no geometry that scores are made of
        known = Knowledge(teacher, seen, dim=1, rng=partial(self.room.rng, "cka"))
        tables = known.embeddings()
        return found | {
            "cka_user": linear_cka(student.user, tables.user),
            "cka_item": linear_cka(student.item, tables.item),
        }

    def _placed(self) -> Stream:
        return replace(self.stream, blocks=(self.room.block,))

    def _epoch(self, label: str, done: int, total: int) -> None:
        self.watcher.epoch(f"block 0 {label}", done, total)
