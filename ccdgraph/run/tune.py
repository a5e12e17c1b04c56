"""Teacher search under a budget: which teacher is worth its cost to the student."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ccdgraph.checkpoint import atomic_write_text
from ccdgraph.config import load, to_toml
from ccdgraph.continual.online import Online, OnlineConfig
from ccdgraph.data import Block, Stream, fingerprint
from ccdgraph.distill.labels import label_block
from ccdgraph.evaluate import evaluate, seen_items
from ccdgraph.nn import BackboneConfig
from ccdgraph.ranking import Scorer
from ccdgraph.run.config import DataConfig
from ccdgraph.run.frontier import Found, predict
from ccdgraph.run.plain import difference, plain_dict
from ccdgraph.run.source import open_stream
from ccdgraph.run.study import Study, open_study

CONFIG, METRIC = "config.toml", "recall@20"


@dataclass(frozen=True)
class SpaceConfig:
    """What teachers are tried.

    Args:
        dims: widths.
        backbones: names.
        num_layers: rounds of propagation, of backbones that have them.
        windows: share of the base block, the newest rows, that the teacher learns from.
    """

    dims: tuple[int, ...] = (8, 16, 32, 64, 128)
    backbones: tuple[str, ...] = ("MF", "LightGCN")
    num_layers: tuple[int, ...] = (1, 2, 3)
    windows: tuple[float, ...] = (0.25, 0.5, 1.0)

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not values:
                raise ValueError(f"'{name}' is empty; name at least one")
        if not all(0 < window <= 1 for window in self.windows):
            raise ValueError(f"'windows' is {self.windows}; expected shares above 0, at most 1")


@dataclass(frozen=True)
class TuneConfig:
    """A search for a teacher; one TOML file.

    Args:
        seed: root of every generator.
        data: the stream.
        student: the model that is to gain; where its labels come from is not read.
        teacher: settings of every teacher but the backbone.
        space: what is tried.
        trials: cheap runs.
        finalists: of these, the best by cheap run that are trained in full.
        cheap: share of the epochs of a cheap run.
        budget: seconds that a teacher may learn and label in full; a cheap run has ``cheap`` of it.
        k: length of the lists.
    """

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    student: OnlineConfig = OnlineConfig()
    teacher: OnlineConfig = OnlineConfig()
    space: SpaceConfig = SpaceConfig()
    trials: int = 20
    finalists: int = 5
    cheap: float = 0.25
    budget: float = 600.0
    k: int = 50

    def __post_init__(self) -> None:
        if self.trials < 1 or self.finalists < 1 or not 0 < self.cheap <= 1 or self.budget <= 0:
            raise ValueError(
                f"'trials' is {self.trials}, 'finalists' {self.finalists}, 'cheap' {self.cheap}, "
                f"'budget' {self.budget}; expected at least 1, at least 1, a share and seconds"
            )


def tune_teacher(
    config: TuneConfig, folder: str | Path, *, stream: Stream | None = None
) -> list[Found]:
    """Try teachers cheaply, then the best of them in full, the best for the student first.

    Quality is Recall@20 on validation rows, averaged over the blocks after the base; test rows are
    never read. A cheap run stops when, at some block, its student lies below the median of the
    others, and every run when its teacher is out of budget. Stopped and called again, it goes on
    with the trials in the folder's journal. A teacher's predicted gain follows from its cheap one,
    by a line through the other finalists.

    Args:
        config: what to try.
        folder: of the journal.
        stream: the data, instead of ``config.data``.

    Raises:
        ValueError: optuna is missing, or the folder holds another search.
    """
    stream = open_stream(config.data) if stream is None else stream
    folder = Path(folder)
    _open(folder, config, fingerprint(stream))
    cheap = open_study(folder, "cheap", config.seed)
    alone = {share: student_alone(config, stream, share) for share in (config.cheap, 1.0)}
    while len(cheap.trials_done) < config.trials:
        cheap.run(lambda trial: _trial(trial, config, stream, config.cheap))
    best = cheap.ranked()[: config.finalists]
    full = open_study(folder, "full", config.seed)
    for params in best[len(full.trials_done) :]:
        if not any(trial.state.name == "WAITING" for trial in full.study.trials):
            full.study.enqueue_trial(params)
        full.run(lambda trial: _trial(trial, config, stream, 1.0))
    return _finalists(cheap, full, alone[config.cheap], alone[1.0])


def student_alone(config: TuneConfig, stream: Stream, share: float) -> float:
    """The student's quality without a teacher."""
    student = Online(_shortened(replace(config.student, labels=None), share), seed=config.seed)
    values = [_quality(student.update(block), stream, block) for block in stream]
    return sum(values[1:]) / (len(values) - 1)


def _trial(trial: Any, config: TuneConfig, stream: Stream, share: float) -> float:
    """The student's quality under the teacher of a trial."""
    import optuna

    model, window = _suggested(trial, config.space)
    settings = _shortened(replace(config.teacher, backbone=model, labels=None), share)
    teacher, seconds = Online(settings, seed=config.seed), 0.0
    scorers: list[Scorer] = []

    def labels(block: Block) -> Any:
        before = scorers[block.index - 1]
        found = label_block(before, stream, block.index, version="tried", k=config.k)
        return found.padded(block.num_users)

    own = _shortened(replace(config.student, labels=None), share)
    student, values, qualities = Online(own, seed=config.seed, labels=labels), [], []
    for block in stream:
        values.append(_quality(student.update(block), stream, block))
        started = time.perf_counter()
        rows = block.train
        if block.index == 0:
            keep = max(1, round(window * len(rows)))
            block = replace(
                block, train=rows[rows.user.new_tensor(range(len(rows) - keep, len(rows)))]
            )
        scorers.append(teacher.update(block))
        seconds += time.perf_counter() - started
        qualities.append(_quality(scorers[-1], stream, stream[block.index]))
        if seconds > config.budget * share:
            raise optuna.TrialPruned(f"out of budget after block {block.index}")
        if block.index:
            trial.report(sum(values[1:]) / block.index, block.index)
            if trial.should_prune():
                raise optuna.TrialPruned
    assert teacher.model is not None
    trial.set_user_attr("seconds", seconds)
    trial.set_user_attr("quality", sum(qualities[1:]) / len(qualities[1:]))
    trial.set_user_attr("parameters", sum(p.numel() for p in teacher.model.parameters()))
    return sum(values[1:]) / (len(values) - 1)


def _suggested(trial: Any, space: SpaceConfig) -> tuple[BackboneConfig, float]:
    name = trial.suggest_categorical("backbone", space.backbones)
    dim = trial.suggest_categorical("dim", space.dims)
    window = trial.suggest_categorical("window", space.windows)
    depth = trial.suggest_categorical("num_layers", space.num_layers)
    return BackboneConfig(name, dim, {} if name == "MF" else {"num_layers": depth}), window


def _shortened(config: OnlineConfig, share: float) -> OnlineConfig:
    fit, base = config.fit, config.base
    shorter = [replace(one, epochs=max(1, round(share * one.epochs))) for one in (fit, base.fit)]
    return replace(config, fit=shorter[0], base=replace(base, fit=shorter[1]))


def _quality(scorer: Scorer, stream: Stream, block: Block) -> float:
    seen = seen_items(stream, tested=block.index, learnt=block.index, split="valid")
    k = min(20, scorer.num_items)
    return evaluate(scorer, block.valid, seen, ks=(k,)).mean()[f"recall@{k}"]


def _finalists(cheap: Study, full: Study, alone_cheap: float, alone: float) -> list[Found]:
    trials = full.complete
    gains = [
        (cheap.best(trial.params).value - alone_cheap, trial.value - alone) for trial in trials
    ]
    found = []
    for place, trial in enumerate(trials):
        others = gains[:place] + gains[place + 1 :]
        about, params = trial.user_attrs, trial.params
        layers = "" if params["backbone"] == "MF" else f" x{params['num_layers']}"
        name = f"{params['backbone']}{layers} d{params['dim']}, base {params['window']:.0%}"
        costs = (about["parameters"], about["seconds"], about["quality"])
        predicted = predict(others, gains[place][0])
        found.append(Found(name, *costs, trial.value, gains[place][1], predicted))
    return sorted(found, key=lambda one: -one.student)


def _open(folder: Path, config: TuneConfig, mark: str) -> None:
    """Makes the folder, or checks that it holds this search on these data."""
    text = f"# data {mark}\n{to_toml(config)}"
    path = folder / CONFIG
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"'{folder}' holds something else; name another folder")
        atomic_write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        differs = difference(plain_dict(load(TuneConfig, path)), plain_dict(config))
        raise ValueError(
            f"'{folder}' was begun with {differs or 'other data'}; name another folder"
        )
