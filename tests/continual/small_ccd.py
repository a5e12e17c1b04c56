"""CCD on a stream that it learns in half a second, and what it holds after every stage."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.continual.config import (
    BaseConfig,
    GenerationConfig,
    ReplayConfig,
    StudentConfig,
    TeacherConfig,
)
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.interactions import Interactions
from ccdgraph.data.stream import Stream
from ccdgraph.nn import BackboneConfig
from ccdgraph.train import FitConfig

State = dict[str, Tensor]

FIT = FitConfig(epochs=2, lr=1e-2)
REPLAY = ReplayConfig(depth=10, stability=2, plasticity=2, student=2, redraw=1)
CONFIG = CCDConfig(
    student=BackboneConfig(dim=4),
    teachers=(BackboneConfig("MF", 6), BackboneConfig(dim=6), BackboneConfig("MultVAE", 6)),
    base=BaseConfig(batch_size=64, fit=FIT),
    generation=GenerationConfig(
        list_length=5, rest_items=20, rest_users=20, batch_size=64, fit=FIT
    ),
    update=StudentConfig(topk=5, replay=(REPLAY,), batch_size=64, fit=FIT),
    teacher=TeacherConfig(topk=5, mean_degree=4.0, replay=(REPLAY,), batch_size=64, fit=FIT),
)


@cache
def stream(*, valid: bool = False) -> Stream:
    """Three blocks of about 60 users and 50 items.

    Without validation rows the last epoch is kept, so that each setting of training shows.
    """
    whole = synthetic_stream(60, 50, 900, num_blocks=2, num_communities=5)
    if valid:
        return whole
    return replace(whole, blocks=tuple(replace(b, valid=Interactions.cat([])) for b in whole))


def setting(config: Any, path: str, value: Any) -> Any:
    """``config`` with the setting at a dotted path replaced; a number is a place in a tuple."""
    name, _, rest = path.partition(".")
    if is_dataclass(config):
        inner = setting(getattr(config, name), rest, value) if rest else value
        return replace(config, **{name: inner})
    entries = list(config)
    entries[int(name)] = setting(entries[int(name)], rest, value) if rest else value
    return tuple(entries)


def with_settings(changes: dict[str, Any], config: CCDConfig = CONFIG) -> CCDConfig:
    """``config`` with several settings replaced."""
    for path, value in changes.items():
        config = setting(config, path, value)
    return config


def learn(config: CCDConfig, num_blocks: int = 3) -> tuple[CCD, dict[str, State]]:
    """A learner after ``num_blocks`` blocks, and its state after every stage, by "block/stage"."""
    learner, trace = CCD(config), {}

    def record() -> None:
        trace[next(reversed(learner.seconds))] = {k: v.clone() for k, v in learner.state().items()}

    learner.on_stage = record
    for block in stream().blocks[:num_blocks]:
        learner.update(block)
    return learner, trace


def differing(first: State, second: State) -> set[str]:
    """Names of the tensors that are not the same bits in both."""
    shared = first.keys() & second.keys()
    common = {name for name in shared if torch.equal(first[name], second[name])}
    return (first.keys() | second.keys()) - common
