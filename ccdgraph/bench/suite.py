"""A suite as configuration, and the cells that it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_type_hints

from ccdgraph.config import ConfigError, from_dict, load
from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.evaluate import KS, Mask
from ccdgraph.nn import BackboneConfig
from ccdgraph.run import DataConfig, EvaluateConfig, RunConfig
from ccdgraph.run.learner import settings_class, strategy_class
from ccdgraph.run.plain import digest, overlay, plain_dict

Protocol = Literal["within", "next"]


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy of a suite.

    Args:
        strategy: as in a run; by default the name of the entry.
        settings: its settings, those of CCD included.
        variants: further settings by name, each laid over ``settings`` as one more strategy
            ``"entry/name"``.
        backbone_key: the setting that the backbones of the suite replace; by default the only one
            that is a backbone.
    """

    strategy: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Any] = field(default_factory=dict)
    backbone_key: str | None = None


@dataclass(frozen=True)
class SuiteConfig:
    """Data x protocol x mask x backbone x strategy x seed, one run each.

    Args:
        name: of the suite; by default that of its file.
        data: streams by name.
        strategies: strategies by name.
        shared: settings that lie under those of every strategy that has them: the base model, say,
            and the budget of training.
        backbones: backbones by name; without any, each strategy takes that of its settings.
        protocols: of the streams; a stored stream keeps its own.
        masks: items hidden in model selection and evaluation.
        seeds: of the learners.
        reference: the strategy that the others are tested against; by default the first.
        ks: list lengths; the first one is the headline's.
        scorers: which scorers to measure; by default all that a strategy offers.
        device: as in a run.
    """

    data: Mapping[str, DataConfig]
    strategies: Mapping[str, StrategyEntry]
    name: str = ""
    shared: Mapping[str, Any] = field(default_factory=dict)
    backbones: Mapping[str, BackboneConfig] = field(default_factory=dict)
    protocols: tuple[Protocol, ...] = ("within",)
    masks: tuple[Mask, ...] = ("strict",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    reference: str | None = None
    ks: tuple[int, ...] = KS
    scorers: tuple[str, ...] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for key in ("data", "strategies", "protocols", "masks", "seeds", "ks"):
            values = vars(self)[key]
            if not values:
                raise ValueError(f"'{key}' is empty; a suite needs at least one")
            if len(set(values)) < len(values):
                raise ValueError(f"'{key}' names an entry twice: {list(values)}")
        names = [learner.name for learner in self.learners()]
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"'reference' is '{self.reference}', expected one of {names}")

    def learners(self) -> Iterator[Learner]:
        """Every strategy and variant, in order."""
        for name, entry in self.strategies.items():
            strategy, key = entry.strategy or name, entry.backbone_key
            names = _setting_names(strategy)
            shared = {key: value for key, value in self.shared.items() if key in names}
            own = overlay(shared, entry.settings)
            yield Learner(name, strategy, own, key)
            for variant, table in entry.variants.items():
                yield Learner(f"{name}/{variant}", strategy, overlay(own, table), key)


@dataclass(frozen=True)
class Learner:
    """A strategy or variant of a suite: its name there, and the fields of its entry."""

    name: str
    strategy: str
    settings: Mapping[str, Any]
    backbone_key: str | None


@dataclass(frozen=True)
class Cell:
    """One run of a suite.

    Args:
        data: name in the suite.
        protocol: of the stream, or ``"own"`` when the data bring their own.
        mask: name in the suite.
        backbone: name in the suite, or ``"own"``.
        strategy: name in the suite.
        seed: of the learner.
        config: what is run.
    """

    data: str
    protocol: str
    mask: str
    backbone: str
    strategy: str
    seed: int
    config: RunConfig

    @property
    def key(self) -> str:
        """Hash of the resolved configuration, which names the cell's folder."""
        return digest({**plain_dict(self.config), "base_from": None})

    @property
    def label(self) -> str:
        """The cell in words."""
        place = (self.data, self.protocol, self.mask, self.backbone, self.strategy)
        return f"{' '.join(place)} seed {self.seed}"


def load_suite(path: str | Path, overrides: Iterable[str] = ()) -> SuiteConfig:
    """The suite in a TOML file, named after it unless it says otherwise.

    Args:
        path: the file.
        overrides: as in :func:`ccdgraph.config.load`.

    Raises:
        ConfigError: the file cannot be read, or a key, a type or a value does not fit.
    """
    suite = load(SuiteConfig, path, overrides)
    return suite if suite.name else replace(suite, name=Path(path).stem)


def cells(suite: SuiteConfig) -> list[Cell]:
    """Every cell of a suite; two that would run the same are one.

    Raises:
        ConfigError: a strategy is unknown, or settings or data do not fit; the message says whose.
    """
    found: dict[str, Cell] = {}
    for (data, protocol, stream), mask in product(_streams(suite), suite.masks):
        evaluate = EvaluateConfig(ks=suite.ks, mask=mask, scorers=suite.scorers, per_user=True)
        plain = RunConfig(device=suite.device, data=stream)
        for learner in suite.learners():
            try:
                configs = [
                    (backbone, _with_learner(plain, learner, settings, evaluate))
                    for backbone, settings in _settings(suite, learner)
                ]
            except ValueError as error:
                raise ConfigError(f"strategy '{learner.name}': {error}") from error
            for (backbone, config), seed in product(configs, suite.seeds):
                seeded = replace(config, seed=seed)
                cell = Cell(data, protocol, mask, backbone, learner.name, seed, seeded)
                same = found.setdefault(cell.key, cell)
                if same is not cell:
                    raise ConfigError(
                        f"cells '{same.label}' and '{cell.label}' are the same run; leave one out"
                    )
    known = {name for learner in suite.learners() for name in _setting_names(learner.strategy)}
    for key in suite.shared:
        if key not in known:
            raise ConfigError(f"'shared.{key}' is a setting of no strategy of the suite; remove it")
    return list(found.values())


def _setting_names(strategy: str) -> set[str]:
    """Names of the settings of a strategy; none of an unknown one, which :func:`cells` reports."""
    try:
        return {one.name for one in fields(settings_class(strategy_class(strategy)))}
    except ConfigError:
        return set()


def _streams(suite: SuiteConfig) -> Iterator[tuple[str, str, DataConfig]]:
    for name, data in suite.data.items():
        if data.source == "stream":
            yield name, "own", data
            continue
        if data.protocol != DataConfig.protocol:
            raise ConfigError(
                f"'data.{name}.protocol' is set; set 'protocols' of the suite instead"
            )
        for protocol in suite.protocols:
            yield name, protocol, replace(data, protocol=protocol)


def _settings(suite: SuiteConfig, learner: Learner) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The settings of a strategy by backbone."""
    key = learner.backbone_key or _backbone_key(learner.strategy)
    if not suite.backbones or not key:
        yield "own", learner.settings
        return
    if key in learner.settings:
        raise ConfigError(f"it sets '{key}', and so do the backbones of the suite; leave one out")
    for name, config in suite.backbones.items():
        yield name, overlay(learner.settings, {key: plain_dict(config)})


def _backbone_key(strategy: str) -> str:
    """The only setting of a strategy that is a backbone; empty when it has none."""
    hints = get_type_hints(settings_class(strategy_class(strategy)))
    keys = [name for name, hint in hints.items() if hint is BackboneConfig]
    if len(keys) > 1:
        raise ConfigError(f"{keys} are backbones; name the one to replace as 'backbone_key'")
    return keys[0] if keys else ""


def _with_learner(
    config: RunConfig, learner: Learner, settings: Mapping[str, Any], evaluate: EvaluateConfig
) -> RunConfig:
    cls = strategy_class(learner.strategy)
    if cls is CCD:
        ccd = from_dict(CCDConfig, settings, "settings")
        return replace(config, ccd=ccd, evaluate=evaluate)
    return replace(
        config, strategy=learner.strategy, ccd=None, settings=settings, evaluate=evaluate
    )
