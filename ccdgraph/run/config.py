"""One run as configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ccdgraph.config import to_dict
from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.data import DATASETS, DatasetName
from ccdgraph.data.filters import Duplicates
from ccdgraph.evaluate import KS, Mask
from ccdgraph.run.learner import read_settings, strategy_class

Source = Literal["synthetic", "presplit", "split", "events", "stream", DatasetName]
CCD_SCORERS = ("student", "teacher", "generated", "stability", "plasticity")

_SPLIT = {"base", "num_blocks", "by", "protocol", "ratios", "seed"}
_PUBLISHED = {"path", "download", "events", "duplicates", "min_rating", "k_core", *_SPLIT}
_READ_BY: dict[str, set[str]] = {
    **{name: _PUBLISHED for name in DATASETS},
    "synthetic": {"base", "num_blocks", "protocol", "seed", "synthetic"},
    "presplit": {"path", "protocol", "seed"},
    "split": {"path"},
    "stream": {"path"},
    "events": {
        *("path", "user", "item", "time", "rating", "time_unit", "header"),
        *("duplicates", "min_rating", "k_core", *_SPLIT),
    },
}


@dataclass(frozen=True)
class SyntheticConfig:
    """Options of :func:`ccdgraph.data.synthetic_stream`."""

    num_users: int = 1500
    num_items: int = 1000
    num_interactions: int = 40_000
    num_communities: int = 10
    affinity: float = 0.8
    drift: float = 0.15


@dataclass(frozen=True)
class DataConfig:
    """Where the stream comes from.

    Args:
        source: ``"synthetic"`` makes it, ``"presplit"`` and ``"stream"`` read a folder of blocks
            (``read_presplit``, ``read_stream``), ``"split"`` the files of one static split
            (``read_split``), ``"events"`` reads interactions and splits them;
            the name of a published data set does so in its format (``read_dataset``).
        path: file or folder, from the current one.
        download: fetch the archive of a published data set to ``path``, as in ``read_dataset``.
        max_blocks: keep the first blocks only; 0 keeps all.
        user: columns and filters as in ``read_interactions``.
        item: see ``user``.
        time: see ``user``.
        rating: see ``user``.
        time_unit: see ``user``.
        header: see ``user``.
        events: kinds of events that are kept, as in ``read_dataset``.
        duplicates: see ``user``.
        min_rating: see ``user``.
        k_core: see ``user``.
        base: cuts as in ``split_stream``.
        num_blocks: see ``base``.
        by: see ``base``.
        protocol: see ``base``; of ``"presplit"``, ``"next"`` as in ``next_protocol``.
        ratios: see ``base``.
        seed: seed of the split and of the synthetic events; not the one of the run.
        synthetic: what the synthetic stream is like.

    Raises:
        ValueError: an option is set that the source does not read, or ``path`` is missing.
    """

    source: Source = "synthetic"
    path: str | None = None
    download: bool = False
    max_blocks: int = 0
    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    time_unit: str | None = None
    header: tuple[str, ...] | None = None
    events: tuple[str, ...] | None = None
    duplicates: Duplicates = "keep"
    min_rating: float | None = None
    k_core: int = 0
    base: float = 0.5
    num_blocks: int = 5
    by: Literal["count", "time"] = "count"
    protocol: Literal["within", "next"] = "within"
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

    def __post_init__(self) -> None:
        read = _READ_BY[self.source]
        for option in fields(self):
            default = (
                SyntheticConfig() if option.name == "synthetic" else option.default
            )  # the one factory
            unread = option.name not in read | {"source", "max_blocks"}
            if unread and getattr(self, option.name) != default:
                raise ValueError(
                    f"'{option.name}' has no effect on source '{self.source}'; leave it out"
                )
        if "path" in read and self.path is None:
            raise ValueError(f"source '{self.source}' needs a 'path'; set data.path")
        if self.max_blocks < 0:
            raise ValueError(f"'max_blocks' is {self.max_blocks}; it must be at least 0")


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured after every block.

    Args:
        ks: list lengths; the first one is the headline's.
        mask: items hidden in the lists; ``None`` takes that of the learner.
        scorers: which of the learner's scorers to measure; ``None`` measures all.
        per_user: store the metrics of every user as well.
    """

    ks: tuple[int, ...] = KS
    mask: Mask | None = None
    scorers: tuple[str, ...] | None = None
    per_user: bool = False

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"'ks' is {self.ks}; it must hold list lengths of at least 1")
        if self.scorers is not None and not self.scorers:
            raise ValueError("'scorers' is empty; name at least one, such as 'student'")

    @property
    def headline(self) -> str:
        """The metric of tables and accuracy matrices."""
        return f"recall@{self.ks[0]}"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the results of a run; one TOML file.

    Args:
        seed: root of every generator of the learner.
        device: ``"auto"`` is the first CUDA device where there is one.
        data: the stream.
        strategy: the learner: a class of ``ccdgraph.continual``, or ``"module:Class"``.
        ccd: settings of the strategy CCD, and of no other.
        settings: settings of any other strategy, as the dataclass that it takes; kept with every
            default written out.
        evaluate: what is measured.
        base_from: folder of another run on the same data whose base models (the teachers of CCD,
            the model of a baseline) are taken over instead of being trained.
        keep_states: keep the learner's state after every block; ``ccdgraph label`` reads them.

    Raises:
        ValueError: the strategy is unknown, its settings do not fit or stand in the wrong table,
            or ``evaluate.mask`` contradicts the mask of the strategy.

    >>> RunConfig(evaluate=EvaluateConfig(mask="block")).ccd.mask
    'block'
    """

    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    strategy: str = "CCD"
    ccd: CCDConfig | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    base_from: str | None = None
    keep_states: bool = False

    def __post_init__(self) -> None:
        self._check_tables()
        learner = self.learner
        options = {option.name: option.default for option in fields(learner)}
        asked, default = self.evaluate.mask, options.get("mask", "strict")
        own = to_dict(learner).get("mask", default)
        if asked is not None and own not in (asked, default):
            where = "ccd" if self.strategy == "CCD" else "settings"
            raise ValueError(
                f"'evaluate.mask' is {asked!r} and '{where}.mask' {own!r}; set one of them"
            )
        mask = own if asked is None else asked
        if "mask" in options:
            learner = replace(learner, mask=mask)
        object.__setattr__(self, "evaluate", replace(self.evaluate, mask=mask))
        if isinstance(learner, CCDConfig):
            object.__setattr__(self, "ccd", learner)
        else:
            object.__setattr__(self, "settings", to_dict(learner))

    def _check_tables(self) -> None:
        if strategy_class(self.strategy) is CCD:
            object.__setattr__(self, "strategy", "CCD")  # however it was spelt
        name = self.strategy
        if name == "CCD":
            if self.settings:
                raise ValueError("'settings' has no effect on strategy 'CCD'; use the table 'ccd'")
            for place, scorer in enumerate(self.evaluate.scorers or ()):
                if scorer not in CCD_SCORERS:
                    raise ValueError(
                        f"'evaluate.scorers.{place}' is {scorer!r}, expected one of "
                        f"{', '.join(map(repr, CCD_SCORERS))}"
                    )
            return
        if self.ccd is not None:
            raise ValueError(f"'ccd' has no effect on strategy '{name}'; use the table 'settings'")
        if self.base_from is not None and not strategy_class(name).BASE_NEEDS:
            raise ValueError(f"'base_from' has no effect on strategy '{name}'; leave it out")

    @property
    def learner(self) -> Any:
        """The settings of the strategy, as the dataclass that it takes."""
        if self.strategy == "CCD":
            return CCDConfig() if self.ccd is None else self.ccd
        return read_settings(self.strategy, self.settings)

    @property
    def mask(self) -> Mask:
        """The mask of model selection and evaluation."""
        assert self.evaluate.mask is not None, "set when the configuration was made"
        return self.evaluate.mask
