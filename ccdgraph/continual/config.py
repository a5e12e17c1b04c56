"""Settings of Continual Collaborative Distillation, one dataclass a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ccdgraph.distill.methods import check_methods
from ccdgraph.nn.config import BackboneConfig
from ccdgraph.train import FitConfig

Initialisation = Literal["two-hop", "two-hop-any", "one-hop", "random"]
Setting = TypeVar("Setting")


@dataclass(frozen=True)
class ReplayConfig:
    """Proxy-guided replay of one block.

    Args:
        depth: length of each source's list ``N``.
        stability: items drawn for a user from the stability proxy; 0 switches it off.
        plasticity: items drawn from the plasticity proxy.
        student: items drawn from the updated student (teacher update only).
        weight: weight of the loss in the first epoch.
        anneal: epochs in which the weight falls by a factor e.
        sharpness: how much rank disparity raises the chance of a draw.
        redraw: epochs between two draws.
        adaptive: use the rank disparity; ``False`` draws uniformly.
        temperature: what scores are divided by in a label. Distilled scores are large, so
            that labels of 1 are all near 1 and rank nothing.
        unseen: lists and ranks leave out what a user has already; ``False`` replays that as well,
            as the teachers of the released code do.
        batch_size: replayed pairs of a step.
        users: users whose knowledge is replayed, drawn anew for every block; 0 takes all. Their
            ranks are what replay costs on a large catalogue.
    """

    depth: int = 100
    stability: int = 5
    plasticity: int = 5
    student: int = 5
    weight: float = 0.5
    anneal: float = 10.0
    sharpness: float = 1e-4
    redraw: int = 5
    adaptive: bool = True
    temperature: float = 1.0
    unseen: bool = True
    batch_size: int = 2048
    users: int = 0


@dataclass(frozen=True)
class BaseConfig:
    """Training of the teachers on the base block.

    Args:
        batch_size: interactions of a step; with two negatives each, 256 are the 512 pairs of the
            released code.
        negatives: negatives of an interaction.
        fit: training settings.
    """

    batch_size: int = 256
    negatives: int = 2
    fit: FitConfig = FitConfig(epochs=100, lr=1e-3, weight_decay=1e-4, patience=10)


@dataclass(frozen=True)
class GenerationConfig:
    """Stage 1: distilling the teachers into a student.

    Args:
        repeat: distil anew after every block; ``False`` does so after the base block alone, and the
            student then goes on from itself.
        distill: names of methods (:data:`ccdgraph.distill.methods.METHODS`); the default is RRD on
            the user side and on the item side, none trains on the interactions alone.
        methods: settings of the named methods, each in a table of its own; those of ``rrd`` and
            ``ir`` are the fields below.
        into: impose the lists on the ``"served"`` scores, or on those of the ``"tables"`` alone as
            the released code does with a LightGCN (an ablation).
        list_length: interesting items of a user and users of an item.
        rest_items: uninteresting items drawn; 0 takes all.
        rest_users: uninteresting users drawn; 0 takes all.
        weight_user: weight of the user side.
        weight_item: weight of the item side.
        entities: distil over all ``"known"`` users and items, or over those of the ``"block"``.
        start: ``"fresh"`` weights, or those of the ``"previous"`` student.
        exclude_listed: never draw a negative from the lists of teacher, proxies and last student.
        redraw: epochs between two draws of the uninteresting entries.
        users: users whom the teachers rank, drawn anew for every block; 0 takes all. Lists of items
            then hold these users only, and no other user has a list.
        batch_size: interactions, users and items of a step.
        fit: training settings.
    """

    repeat: bool = True
    distill: tuple[str, ...] = ("rrd", "ir")
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    into: Literal["served", "tables"] = "served"
    list_length: int = 40
    rest_items: int = 10_000
    rest_users: int = 11_500
    weight_user: float = 0.01
    weight_item: float = 0.01
    entities: Literal["known", "block"] = "known"
    start: Literal["fresh", "previous"] = "fresh"
    exclude_listed: bool = True
    redraw: int = 10
    users: int = 0
    batch_size: int = 1024
    fit: FitConfig = FitConfig(epochs=10, lr=5e-3, weight_decay=1e-4)

    def __post_init__(self) -> None:
        check_methods(self.distill, self.settings)
        for name in self.methods:
            if name in ("rrd", "ir"):
                raise ValueError(f"'methods.{name}' has no effect; set 'weight_user' and the like")

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Settings of every named method that has any."""
        own = {
            "rrd": {"weight": self.weight_user, "num_rest": self.rest_items},
            "ir": {"weight": self.weight_item, "num_rest": self.rest_users},
        }
        shared = {"k": self.list_length, "redraw": self.redraw}
        used = {name: own[name] | shared for name in own if name in self.distill}
        return {**{name: dict(table) for name, table in self.methods.items()}, **used}


@dataclass(frozen=True)
class StudentConfig:
    """Stage 2: the student learns a block.

    Args:
        updates: parts that the block arrives in for the student (the ratio C^T : C^S).
        init: how new entities start.
        topk: prominent entities of the two-hop mean.
        replay: one setting for all blocks, or one for each block from 1 on.
        exclude_listed: never draw a negative from the best so many items of the proxies, the last
            student and the distilled one, as the released code does; 0 leaves out the seen alone.
        batch_size: interactions of a step.
        fit: training settings.
    """

    updates: int = 1
    init: Initialisation = "two-hop"
    topk: int = 20
    replay: tuple[ReplayConfig, ...] = (ReplayConfig(),)
    exclude_listed: int = 0
    batch_size: int = 2048
    fit: FitConfig = FitConfig(epochs=10, lr=1e-3, weight_decay=1e-4)


@dataclass(frozen=True)
class TeacherConfig:
    """Stage 3: the teachers learn a block.

    Args:
        update: ``False`` leaves the teachers as they are (new entities are only initialised).
        init: how new entities start.
        topk: prominent entities of the two-hop mean.
        distill_weight: weight of LWC-KD; 0 switches it off.
        personal: weight LWC-KD by user (PIW).
        temperature: temperature of LWC-KD.
        mean_degree: neighbours of an entity among its own kind; 0 compares nobody, which costs the
            square of their number.
        num_drawn: users and items that stand for all in the sums of LWC-KD; 0 takes all.
        replay: one setting for all blocks, or one for each block from 1 on.
        pseudo_label: input weight of a replayed pair in a variational teacher.
        exclude_listed: as in stage 2, of the student that has learnt the block.
        batch_size: interactions of a step.
        fit: training settings.
    """

    update: bool = True
    init: Initialisation = "two-hop"
    topk: int = 20
    distill_weight: float = 0.01
    personal: bool = True
    temperature: float = 5.0
    mean_degree: float = 10.0
    num_drawn: int = 0
    replay: tuple[ReplayConfig, ...] = (ReplayConfig(anneal=5.0),)
    pseudo_label: float = 0.1
    exclude_listed: int = 0
    batch_size: int = 2048
    fit: FitConfig = FitConfig(epochs=10, lr=1e-3, weight_decay=1e-4)


@dataclass(frozen=True)
class CCDConfig:
    """All settings of :class:`ccdgraph.continual.CCD`.

    Args:
        student: the compact model that serves.
        teachers: members of the ensemble; they may be of different kinds.
        base: training of the teachers on the base block.
        generation: stage 1.
        update: stage 2.
        teacher: stage 3.
        keep_stability: share of the old stability proxy in the new, for all blocks or by block.
        keep_plasticity: the same of the plasticity proxy.
        align: turn a distilled student into a proxy's coordinates before it is averaged in.
        graph: propagate over all edges so far (``"cumulative"``) or the block's own (``"block"``).
        decay: weight of the edges of earlier blocks, all alike, where the block's own have 1.
        mask: items hidden in model selection, as in evaluation.
        valid_users: users of model selection, drawn anew for every stage; 0 takes all of a block.
    """

    student: BackboneConfig = BackboneConfig(dim=8)
    teachers: tuple[BackboneConfig, ...] = (BackboneConfig(dim=128),) * 5
    base: BaseConfig = BaseConfig()
    generation: GenerationConfig = GenerationConfig()
    update: StudentConfig = StudentConfig()
    teacher: TeacherConfig = TeacherConfig()
    keep_stability: tuple[float, ...] = (0.9,)
    keep_plasticity: tuple[float, ...] = (0.0,)
    align: bool = False
    graph: Literal["cumulative", "block"] = "cumulative"
    decay: float = 1.0
    mask: Literal["block", "strict"] = "strict"
    valid_users: int = 0

    @property
    def keep(self) -> dict[str, tuple[float, ...]]:
        """Shares of the old proxies, by name."""
        return {"stability": self.keep_stability, "plasticity": self.keep_plasticity}


def per_block(settings: Sequence[Setting], block: int) -> Setting:
    """The setting of block ``block`` >= 1; the last one holds for all that follow.

    >>> [per_block((10, 20), block) for block in (1, 2, 3)]
    [10, 20, 20]
    """
    return settings[min(block, len(settings)) - 1]
