"""Baselines on streams that they learn in a moment, and what they recall afterwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from ccdgraph.continual import Strategy
from ccdgraph.continual.config import BaseConfig
from ccdgraph.data.datasets.synthetic import synthetic_stream
from ccdgraph.data.stream import Stream
from ccdgraph.evaluate import evaluate_block
from ccdgraph.nn import BackboneConfig
from ccdgraph.testing import check_strategy
from ccdgraph.train import FitConfig

FIT = FitConfig(epochs=2, lr=1e-2)
SMALL: dict[str, Any] = {
    "backbone": BackboneConfig(dim=4),
    "base": BaseConfig(batch_size=64, fit=FIT),
    "topk": 5,
    "batch_size": 64,
    "fit": FIT,
}
# A backbone of each kind, each graph, decay, and both masks.
SETTINGS: list[dict[str, Any]] = [
    {"decay": 0.5, "mask": "strict"},
    {"graph": "block", "backbone": BackboneConfig("MF", 4), "init": "random", "mask": "block"},
    {"backbone": BackboneConfig("MultVAE", 4)},
]
every_setting = pytest.mark.parametrize(
    "settings", SETTINGS, ids=["LightGCN cumulative", "MF block", "MultVAE"]
)
ranking_settings = pytest.mark.parametrize(
    "settings", SETTINGS[:2], ids=["LightGCN cumulative", "MF block"]
)
# Long enough to forget: everybody changes groups with every block.
LEARNING: dict[str, Any] = {
    "backbone": BackboneConfig("MF", 16),
    "base": BaseConfig(batch_size=256, fit=FitConfig(15, 1e-2, 0.0)),
    "batch_size": 256,
    "fit": FitConfig(20, 1e-2, 0.0),
}


def check(build: Callable[[dict[str, Any]], Strategy], settings: dict[str, Any]) -> None:
    """The contract of strategies, on a small stream of three blocks."""
    check_strategy(lambda _: build(SMALL | settings))


@cache
def small() -> Stream:
    """The stream of the contract: three blocks of about 60 users and 50 items."""
    return synthetic_stream(60, 50, 900, num_blocks=2, num_communities=5)


@cache
def planted(drift: float = 1.0) -> Stream:
    """Six communities; with a drift of 1 everybody changes groups with every block."""
    return synthetic_stream(
        200, 150, 5000, num_blocks=2, num_communities=6, affinity=0.95, drift=drift
    )


def learn(strategy: Any, stream: Stream) -> Any:
    """``strategy`` after the whole stream."""
    for block in stream:
        strategy.update(block)
    return strategy


def recall(strategy: Strategy, stream: Stream, *tested: int) -> list[float]:
    """Test recall@20 of what is served after the whole stream, on each of ``tested``."""
    scorer = next(iter(learn(strategy, stream).scorers().values()))
    last = len(stream) - 1
    return [
        evaluate_block(scorer, stream, block, last, ks=(20,))["all"].mean()["recall@20"]
        for block in tested
    ]
