"""Continual Collaborative Distillation: teacher and student keep each other up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ccdgraph.continual.config import CCDConfig, per_block
from ccdgraph.continual.generation import check_config, generate_student
from ccdgraph.continual.known import Known, arrive, parts
from ccdgraph.continual.neighbours import Neighbours
from ccdgraph.continual.replay import Memory, moving_average
from ccdgraph.continual.scene import Scene
from ccdgraph.continual.stages import (
    remember,
    train_teacher,
    unlisted,
    update_student,
    update_teacher,
)
from ccdgraph.continual.strategy import Strategy, load_model, under
from ccdgraph.data.stream import Block
from ccdgraph.distill.teacher import Ensemble
from ccdgraph.distill.trajectory import Snapshots, Trajectories
from ccdgraph.nn import Backbone, Embeddings
from ccdgraph.ranking import Scorer
from ccdgraph.train import embed

Shared = tuple[list[Memory], Neighbours | None, Tensor | None]


class CCD(Strategy):
    """The three stages of Lee et al., *Continual Collaborative Distillation*, KDD 2024.

    The base block trains the teachers and distils them into the student. Every later block

    1. updates the student, with replay of what the proxies still know;
    2. updates the teachers, with replay of the proxies and of the student as well;
    3. distils the teachers into the student of the next block and moves the proxies towards it.

    https://arxiv.org/abs/2405.19046. What differs from the released code, and by how much it
    matters, is listed in the docs under "Reproducing CCD".

    Args:
        config: all settings.
        seed: root of every generator.
        teachers: trained base teachers; they are trained on the base block when absent.
    """

    BASE_NEEDS = ("teachers", "base", "mask")

    def __init__(
        self, config: CCDConfig, *, seed: int = 0, teachers: Sequence[Backbone] = ()
    ) -> None:
        check_config(config)
        self.config, self.seed = config, seed
        self.teachers = list(teachers)
        self.student: Backbone | None = None
        # Lists along the last training of each teacher, for the methods that ask.
        self.along: dict[int, Tensor] = {}
        # Served embeddings by name: student, generated, stability, plasticity.
        self.knowledge: dict[str, Embeddings] = {}
        self.known: Known | None = None
        self.index, self.done = -1, 0
        self.seconds: dict[str, float] = {}
        self._cache: tuple[int, Shared] | None = None

    def update(self, block: Block) -> Scorer:
        """Learn ``block``; stages that were finished before :meth:`restore` are not repeated.

        Returns:
            The served student.

        Raises:
            ValueError: a block was left out, or comes again after a later one.
        """
        if block.index not in (self.index, self.index + 1):
            raise ValueError(
                f"'block' is number {block.index} after number {self.index}; learn blocks in order"
            )
        if block.index != self.index:
            self.index, self.done = block.index, 0
            if self.known is None:
                self._arrive(block)
        for place, (name, stage) in enumerate(self._stages(block)):
            if place < self.done:
                continue
            started = time.perf_counter()
            stage()
            self.seconds[f"{block.index}/{name}"] = time.perf_counter() - started
            self.done = place + 1
            if self.on_stage is not None:
                self.on_stage()
        return self.knowledge["student"]

    def _stages(self, block: Block) -> list[tuple[str, Callable[[], None]]]:
        members = range(len(self.config.teachers))
        if block.index == 0:
            learn = [(f"teacher {m}", partial(self._train_teacher, block, m)) for m in members]
            return [*learn, ("generation", partial(self._generate_student, block))]
        return [
            ("student", partial(self._update_student, block)),
            *((f"teacher {m}", partial(self._update_teacher, block, m)) for m in members),
            ("generation", partial(self._generate_student, block)),
        ]

    def _train_teacher(self, block: Block, member: int) -> None:
        if member >= len(self.teachers):
            scene = self._watching(block, member)
            self.teachers.append(train_teacher(scene, self.config.teachers[member]))
            self._keep(scene, member)

    def _update_student(self, block: Block) -> None:
        assert self.student is not None and self.known is not None
        knowledge = dict(self.knowledge)
        for place, piece in enumerate(parts(block, self.config.update.updates, self.known)):
            self._arrive(piece, part=place)
            scene = self._scene(piece, "student", place)
            self.student = update_student(scene, self.student, knowledge)
        self.knowledge["student"] = embed(self.student, self.known.graph)

    def _update_teacher(self, block: Block, member: int) -> None:
        scene = self._watching(block, member)
        self.teachers[member] = update_teacher(scene, self.teachers[member], *self._shared(block))
        self._keep(scene, member)

    def _generate_student(self, block: Block) -> None:
        assert self.known is not None
        stage = self.config.generation
        if stage.repeat or self.student is None:
            start = self.student if stage.start == "previous" else None
            scene, others = self._scene(block, "generation"), list(self.knowledge.values())
            along = self._trajectories()
            self.student = generate_student(scene, self.ensemble(), start, others, along)
        generated = embed(self.student, self.known.graph)
        if block.index == 0:
            self.knowledge = dict.fromkeys(("student", "stability", "plasticity"), generated)
        else:
            keep, align = self.config.keep, self.config.align
            for name in ("stability", "plasticity"):
                old, share = self.knowledge[name], per_block(keep[name], block.index)
                self.knowledge[name] = moving_average(old, generated, share, align=align)
        self.knowledge["generated"] = generated

    def ensemble(self) -> Ensemble:
        """The teachers as one scorer, over the graph of the last block."""
        assert self.known is not None, "no block has been learnt yet"
        return Ensemble([embed(teacher, self.known.graph) for teacher in self.teachers])

    def scorers(self) -> dict[str, Scorer]:
        """The served student, the ensemble, the distilled student and the proxies."""
        others = {n: self.knowledge[n] for n in ("generated", "stability", "plasticity")}
        return {"student": self.knowledge["student"], "teacher": self.ensemble(), **others}

    def _watching(self, block: Block, member: int) -> Scene:
        """Where a teacher is trained, and looked at on the way if a method will ask."""
        scene = self._scene(block, f"teacher {member}")
        if "hetcomp" not in self.config.generation.distill:
            return scene
        return replace(scene, watch=Snapshots(scene.known.seen))

    def _keep(self, scene: Scene, member: int) -> None:
        watch = scene.watch
        if watch is not None:
            if watch.lists is None:  # the block did not train it
                watch.finish(embed(self.teachers[member], scene.known.graph), 0)
            assert watch.lists is not None
            self.along[member] = watch.lists

    def _trajectories(self) -> Trajectories | None:
        if not self.teachers or len(self.along) < len(self.teachers):
            return None
        return Trajectories.of_lists(torch.stack([self.along[m] for m in sorted(self.along)]))

    def _arrive(self, block: Block, part: int = 0) -> None:
        cumulative, decay = self.config.graph == "cumulative", self.config.decay
        self.known = arrive(self.known, block, cumulative=cumulative, decay=decay, part=part)

    def _scene(self, block: Block, *use: int | str) -> Scene:
        assert self.known is not None
        report, label = self.on_progress, f"block {block.index} {use[0]}"
        return Scene(
            block,
            self.known,
            self.config,
            (self.seed, block.index, *use),
            None if report is None else lambda done, total, _: report(label, done, total),
        )

    def _shared(self, block: Block) -> Shared:
        """What all members read in their update; made for the first, kept for the others."""
        if self._cache is None or self._cache[0] != block.index:
            stage, scene = self.config.teacher, self._scene(block, "teacher")
            sources = {n: self.knowledge[n] for n in ("stability", "plasticity", "student")}
            memories = remember(scene, sources, per_block(stage.replay, block.index))
            before = scene.known.before if stage.update and stage.distill_weight > 0 else None
            near = Neighbours.of(before, mean_degree=stage.mean_degree) if before else None
            exclude = unlisted(scene, self.knowledge.values(), stage.exclude_listed)
            self._cache = (block.index, (memories, near, exclude))
        return self._cache[1]

    def state(self) -> dict[str, Tensor]:
        """Models, served embeddings, and which stage of which block was finished last."""
        tensors = {"cursor": torch.tensor([self.index, self.done])}
        models = {f"teacher.{m}": teacher for m, teacher in enumerate(self.teachers)}
        if self.student is not None:
            models["student"] = self.student
        for name, model in models.items():
            tensors[f"{name}/sizes"] = torch.tensor([model.num_users, model.num_items])
            tensors |= {f"{name}/{key}": value for key, value in model.state_dict().items()}
        for name, out in self.knowledge.items():
            tensors |= {f"knows.{name}/user": out.user, f"knows.{name}/item": out.item}
        return tensors | {f"along.{m}/lists": lists for m, lists in self.along.items()}

    @property
    def has_base(self) -> bool:
        """Whether the base teachers are trained, and no student yet."""
        return (self.index, self.done) == (0, len(self.config.teachers))

    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        """Take up :meth:`state`; ``blocks`` run up to the one that had been begun."""
        self.index, self.done = (int(value) for value in state["cursor"])
        self.known, self._cache = None, None
        for block in blocks[: self.index + 1]:
            begun = block.index == 0 or block.index < self.index or self.done > 0
            pieces = parts(block, self.config.update.updates, self.known) if self.known else [block]
            for place, piece in enumerate(pieces if begun else []):
                self._arrive(piece, part=place)
        held = {key: value.to(blocks[0].train.user.device) for key, value in state.items()}
        tables = [under(f"teacher.{m}/", held) for m in range(len(self.config.teachers))]
        self.teachers = [
            load_model(c, t) for c, t in zip(self.config.teachers, tables, strict=True) if t
        ]
        self.along = {
            m: held[key] for m in range(len(tables)) if (key := f"along.{m}/lists") in held
        }
        student = under("student/", held)
        self.student = load_model(self.config.student, student) if student else None
        self.knowledge = {
            key.removesuffix("/user"): Embeddings(user, held[f"knows.{key[:-4]}item"])
            for key, user in under("knows.", held).items()
            if key.endswith("/user")
        }
