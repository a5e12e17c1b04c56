"""What a run has measured: rows, accuracy matrices and their summaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ccdgraph.data import Stream
from ccdgraph.evaluate import AccuracyMatrix, Evaluation, Split, evaluate_block
from ccdgraph.ranking import Scorer
from ccdgraph.run.config import RunConfig
from ccdgraph.run.signatures import Signature
from ccdgraph.run.source import tested_blocks


class Row(NamedTuple):
    """One mean: metric ``metric`` of ``scorer`` on block ``tested`` after block ``learnt``."""

    scorer: str
    learnt: int
    tested: int
    split: str
    group: str
    metric: str
    value: float
    users: int


@dataclass(frozen=True)
class RunResult:
    """What a run has measured so far.

    Args:
        config: the configuration.
        num_blocks: blocks of the stream.
        rows: every mean, as in ``metrics.parquet``.
        seconds: seconds by ``"block/stage"``.
        parameters: trained numbers by model after the last block.
        state_bytes: bytes that the learner needs to go on, by the last block learnt.
        signatures: what looks wrong, block by block.
    """

    config: RunConfig
    num_blocks: int
    rows: tuple[Row, ...]
    seconds: Mapping[str, float]
    parameters: Mapping[str, int]
    state_bytes: Mapping[str, int] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()

    @property
    def scorers(self) -> tuple[str, ...]:
        """The scorers measured, the served one first unless the configuration says otherwise."""
        measured = tuple(dict.fromkeys(row.scorer for row in self.rows))
        return measured or self.config.evaluate.scorers or ()

    @property
    def learnt(self) -> int:
        """The last block that was measured; -1 before the first."""
        return max((row.learnt for row in self.rows), default=-1)

    def matrix(
        self, scorer: str, metric: str | None = None, *, group: str = "all", split: Split = "test"
    ) -> AccuracyMatrix:
        """The accuracy matrix of a scorer.

        Args:
            scorer: name as in :attr:`scorers`.
            metric: such as ``"ndcg@50"``; by default Recall at the first of ``ks``.
            group: users or items counted, such as ``"new_users"``.
            split: ``"test"``, or ``"valid"``, which has a diagonal only.
        """
        wanted = (scorer, split, group, metric or self.config.evaluate.headline)
        matrix = AccuracyMatrix.empty(self.num_blocks)
        for row in self.rows:
            if (row.scorer, row.split, row.group, row.metric) == wanted:
                matrix = matrix.set(row.learnt, row.tested, row.value)
        return matrix


def measure(
    scorers: Mapping[str, Scorer], stream: Stream, learnt: int, config: RunConfig
) -> tuple[list[Row], list[tuple[str, int, Evaluation]]]:
    """Every mean after block ``learnt``, and per-user metrics by scorer and tested block.

    Raises:
        ValueError: a scorer is asked for that there is not.
    """
    rows: list[Row] = []
    users: list[tuple[str, int, Evaluation]] = []
    for name in config.evaluate.scorers or ():
        if name not in scorers:
            raise ValueError(
                f"{name!r} is not among the scorers of the strategy: {', '.join(scorers)}"
            )
    for name in config.evaluate.scorers or scorers:
        for tested in tested_blocks(stream, learnt):
            groups = evaluate_block(
                scorers[name], stream, tested, learnt, mask=config.mask, ks=config.evaluate.ks
            )
            users.append((name, tested, groups["all"]))
            for group, measured in groups.items():
                rows += _rows((name, learnt, tested, "test", group), measured)
        if len(stream[learnt].valid):
            groups = evaluate_block(
                scorers[name],
                stream,
                learnt,
                learnt,
                mask=config.mask,
                split="valid",
                ks=config.evaluate.ks,
            )
            rows += _rows((name, learnt, learnt, "valid", "all"), groups["all"])
    return rows, users


def _rows(place: tuple[str, int, int, str, str], measured: Evaluation) -> list[Row]:
    return [Row(*place, metric, value, len(measured)) for metric, value in measured.mean().items()]


def summary(result: RunResult) -> dict[str, Any]:
    """Accuracy matrix, LA, RA, H, forgetting and BWT by scorer, with and without the base block.

    Unmeasured entries are ``None``.
    """
    return {name: _summary(result.matrix(name), result.learnt + 1) for name in result.scorers}


def _summary(matrix: AccuracyMatrix, num_learnt: int) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for key, base in (("with_base", True), ("without_base", False)):
        blocks = range(0 if base else 1, num_learnt)
        means[key] = {
            "blocks": list(blocks),
            "LA": _numbers([matrix.learning_average(k, base=base) for k in blocks]),
            "RA": _numbers([matrix.retained_average(k, base=base) for k in blocks]),
            "H": _numbers([matrix.h_mean(k, base=base) for k in blocks]),
            "forgetting": _numbers([matrix.forgetting(k, base=base) for k in blocks]),
            "BWT": _numbers([matrix.backward_transfer(k, base=base) for k in blocks]),
        }
    return {"matrix": [_numbers(row) for row in matrix.values.tolist()], **means}


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]
