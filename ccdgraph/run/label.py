"""A run as a producer of labels: what its learner says of each block before it learns it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ccdgraph import checkpoint
from ccdgraph.config import class_path, load
from ccdgraph.continual import Strategy
from ccdgraph.data import Stream, fingerprint
from ccdgraph.distill.labels import LabelPart, LabelWriter, identity, label_block
from ccdgraph.distill.labels.source import teacher_before, version_after
from ccdgraph.ranking import Scorer
from ccdgraph.run.config import RunConfig
from ccdgraph.run.folder import CONFIG, STATES
from ccdgraph.run.learner import build, pick_device
from ccdgraph.run.source import open_stream


class Counted:
    """A scorer that counts what it is asked.

    Args:
        scorer: what scores.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.rows = scorer, 0
        self.num_users, self.num_items = scorer.num_users, scorer.num_items
        self.members = len(getattr(scorer, "members", (scorer,)))

    def scores(self, user: Tensor) -> Tensor:
        """As the scorer's."""
        self.rows += len(user)
        return self.scorer.scores(user)


def label_run(
    folder: str | Path,
    store: str | Path,
    *,
    teacher: str = "teacher",
    scorer: str | None = None,
    lags: Sequence[int] = (0,),
    freeze: int | None = None,
    k: int = 100,
    half: bool = False,
) -> list[LabelPart]:
    """Labels of every block after the base, by the learner of a run as it was before that block.

    A part's version is ``teacher`` and the block that the learner learnt last. Its cost holds
    ``forwards``, rows of scores over the catalogue that models computed (an ensemble computes one
    for each member), and ``seconds``, from loading the learner to its lists.

    Args:
        folder: of a run with ``keep_states``.
        store: of the labels; made when missing.
        teacher: what the store calls the learner.
        scorer: which of its scorers; by default ``"teacher"`` or, where there is none, the served.
        lags: blocks that the labels may be behind, one set of labels for each
            (:func:`~ccdgraph.distill.labels.source.teacher_before`).
        freeze: last block that the labels know of.
        k: length of the lists.
        half: store scores as float16.

    Raises:
        ValueError: the run keeps no states, is of other data by now, or has no such scorer; or the
            store cannot take the labels.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise ValueError(f"'{folder}' holds no run, '{CONFIG}' is missing; name another folder")
    config = load(RunConfig, folder / CONFIG)
    stream = open_stream(config.data)
    blocks = range(1, len(stream))
    wanted = sorted(
        {(teacher_before(b, lag=lag, freeze=freeze), b) for b in blocks for lag in lags}
    )
    for learnt, _ in wanted:
        _kept(folder, learnt)  # before a store is made
    placed, parts = stream.to(pick_device(config.device)), []
    with LabelWriter(store, identity(stream)) as writer:
        for learnt in sorted({learnt for learnt, _ in wanted}):
            started = time.perf_counter()
            counted = Counted(_scorer(restored(config, folder, placed, learnt), scorer))
            for block in (block for done, block in wanted if done == learnt):
                version = version_after(teacher, learnt)
                labels = label_block(counted, placed, block, version=version, k=k).to("cpu")
                forwards = float(counted.rows * counted.members)
                cost = {"forwards": forwards, "seconds": time.perf_counter() - started}
                sizes = {"num_users": counted.num_users, "num_items": counted.num_items}
                parts.append(writer.write(labels, half=half, cost=cost, **sizes))
                started, counted.rows = time.perf_counter(), 0
    return parts


def restored(config: RunConfig, folder: Path, stream: Stream, learnt: int) -> Strategy:
    """The learner of a run as it was after block ``learnt``, on the device of ``stream``.

    Raises:
        ValueError: that state was not kept, or is of other data or another learner.
    """
    tensors, meta = checkpoint.load(_kept(folder, learnt))
    strategy = build(config.strategy, config.learner, config.seed)
    sizes = {"users": stream[-1].num_users, "items": stream[-1].num_items}
    checkpoint.check(meta, class_path=class_path(type(strategy)), sizes=sizes)
    if meta["fingerprint"] != fingerprint(stream):
        raise ValueError(f"the data of '{folder}' have changed since it ran; put them back")
    strategy.restore(tensors, stream.blocks[: learnt + 1])
    return strategy


def _kept(folder: Path, learnt: int) -> Path:
    kept = folder / STATES / str(learnt)
    if not checkpoint.exists(kept):
        raise ValueError(
            f"'{folder}' keeps no state after block {learnt}; run it with keep_states = true, or "
            "let it learn that block first"
        )
    return kept


def _scorer(strategy: Strategy, name: str | None) -> Scorer:
    scorers = strategy.scorers()
    if name is None:
        name = "teacher" if "teacher" in scorers else next(iter(scorers))
    if name not in scorers:
        raise ValueError(f"'scorer' is {name!r}, the run has {', '.join(map(repr, scorers))}")
    return scorers[name]


def amortised(parts: Sequence[LabelPart], students: int) -> dict[str, float]:
    """Labels, forwards, megabytes and seconds of a teacher, and seconds for each student.

    >>> amortised([], 4)["seconds a student"]
    0.0
    """
    if students < 1:
        raise ValueError(f"'students' is {students}; expected at least 1")
    seconds = sum(part.cost.get("seconds", 0.0) for part in parts)
    return {
        "labels": float(sum(part.rows for part in parts)),
        "teacher forwards": sum(part.cost.get("forwards", 0.0) for part in parts),
        "megabytes": sum(part.size for part in parts) / 1e6,
        "seconds": seconds,
        "seconds a student": seconds / students,
    }
