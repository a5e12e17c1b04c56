"""One static distillation as configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ccdgraph.distill.methods import check_methods, expand
from ccdgraph.nn import BackboneConfig
from ccdgraph.run.config import DataConfig
from ccdgraph.run.protocol import ProtocolConfig
from ccdgraph.train import FitConfig

UNTAUGHT = ("concf",)
"""Methods that have no teacher."""


@dataclass(frozen=True)
class Learner:
    """A model and its training.

    Args:
        model: the backbone.
        batch_size: interactions of a step.
        negatives: negatives of an interaction.
        fit: training settings.
    """

    model: BackboneConfig = field(default_factory=lambda: BackboneConfig("MF", 64))
    batch_size: int = 1024
    negatives: int = 1
    fit: FitConfig = FitConfig(epochs=200, lr=1e-3, weight_decay=1e-3, patience=20)


@dataclass(frozen=True)
class DistillConfig:
    """Everything that decides the results of a static distillation; one TOML file.

    Args:
        seed: root of every generator.
        device: ``"auto"`` is the first CUDA device where there is one.
        data: where the data come from; the first block is used.
        student: the model that learns from teachers.
        teachers: models that are trained first; several are one ensemble.
        teachers_from: folder of another distillation on the same data whose teachers are taken.
        lists_from: folder of a label store whose lists of the first block are taken.
        lists_version: of the teacher in that store; ``None`` takes the only one that has labels of
            the first block.
        distill: names of methods (:data:`ccdgraph.distill.methods.METHODS`).
        methods: settings of the named methods.
        base_weight: weight of the student's own loss on the interactions.
        reference: train the student without a teacher as well, to compare with.
        trajectory: checkpoints that are kept of every teacher's training as top lists; 0 keeps
            none.
        measure: how models are measured and chosen.

    Raises:
        ValueError: a method is unknown, its settings do not fit, or it has nobody to learn from.
    """

    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    student: Learner = field(default_factory=Learner)
    teachers: tuple[Learner, ...] = ()
    teachers_from: str | None = None
    lists_from: str | None = None
    lists_version: str | None = None
    distill: tuple[str, ...] = ()
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    base_weight: float = 1.0
    reference: bool = True
    trajectory: int = 4
    measure: ProtocolConfig = field(default_factory=ProtocolConfig)

    def __post_init__(self) -> None:
        check_methods(self.distill, self.methods)
        sources = [bool(self.teachers), self.teachers_from, self.lists_from]
        if sum(map(bool, sources)) > 1:
            raise ValueError("'teachers', 'teachers_from' and 'lists_from' exclude one another")
        if self.lists_version is not None and self.lists_from is None:
            raise ValueError("'lists_version' is set without 'lists_from', the store that holds it")
        used = expand(self.distill)
        taught = [name for name in used if name not in UNTAUGHT]
        if taught and not any(sources):
            raise ValueError(
                f"'{taught[0]}' needs a teacher; set 'teachers', 'teachers_from' or 'lists_from'"
            )
        if self.trajectory == 1 or self.trajectory < 0:
            raise ValueError("'trajectory' must be 0, or 2 checkpoints and more")
        if "hetcomp" in used and not self.trajectory:
            raise ValueError("'hetcomp' needs a 'trajectory' of 2 checkpoints or more")
        if not used and self.base_weight == 0:
            raise ValueError("'base_weight' is 0 and 'distill' empty; the student has no loss")
