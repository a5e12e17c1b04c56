"""What a run learns with: a strategy by name, its settings as a dataclass, and a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_type_hints

import torch
from torch import nn

from ccdgraph.config import ConfigError, from_dict, resolve
from ccdgraph.continual import CCD, AdaptiveCCD, Strategy

Value = TypeVar("Value")


def strategy_class(name: str) -> type[Strategy]:
    """The class that ``"module:Name"``, or a bare name in ``ccdgraph.continual``, stands for.

    Raises:
        ConfigError: there is no such class, or it is not a strategy that can be made.

    >>> strategy_class("CCD").__name__
    'CCD'
    """
    path = name if ":" in name else f"ccdgraph.continual:{name}"
    cls = resolve(path)
    if not (isinstance(cls, type) and issubclass(cls, Strategy)) or cls is Strategy:
        raise ConfigError(f"'{path}' is not a strategy; name a class derived from Strategy")
    return cls


def settings_class(cls: type[Strategy]) -> type:
    """The dataclass that the argument ``config`` of a strategy is annotated with.

    Raises:
        ConfigError: there is no such annotation.
    """
    found = get_type_hints(cls.__init__).get("config")
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ConfigError(
            f"strategy '{cls.__name__}' takes no settings; annotate its argument 'config' with "
            "a dataclass"
        )
    return found


def read_settings(name: str, table: Mapping[str, Any]) -> Any:
    """The settings of a strategy as its own dataclass; unknown keys are refused.

    Raises:
        ConfigError: the strategy is unknown, or a key, a type or a value does not fit.
    """
    return from_dict(settings_class(strategy_class(name)), table, "settings")


def build(name: str, settings: Any, seed: int) -> Strategy:
    """A fresh strategy.

    Raises:
        ConfigError: the class cannot be made of settings and a seed.
    """
    cls: Any = strategy_class(name)
    try:
        made: Strategy = cls(settings, seed=seed)
    except TypeError as error:
        raise ConfigError(f"'{name}' cannot be built with settings and a seed: {error}") from error
    return made


def pick_device(name: str) -> torch.device:
    """The device that ``"auto"``, ``"cpu"`` or ``"cuda"`` means here.

    Raises:
        ValueError: there is no such device.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("'device' is 'cuda', but torch finds none; use 'auto' or 'cpu'")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def within(settings: Any, kind: type[Value]) -> Iterator[Value]:
    """Every value of a type in nested dataclasses and tuples, in the order of the fields.

    >>> from ccdgraph.nn import BackboneConfig
    >>> [model.dim for model in within((BackboneConfig(dim=4), 1), BackboneConfig)]
    [4]
    """
    if isinstance(settings, kind):
        yield settings
    elif dataclasses.is_dataclass(settings):
        for field in dataclasses.fields(settings):
            yield from within(vars(settings)[field.name], kind)
    elif isinstance(settings, tuple):
        for entry in settings:
            yield from within(entry, kind)


def count_parameters(strategy: Strategy) -> dict[str, int]:
    """Trained numbers of the models that a strategy holds, by the name it keeps them under.

    Those of CCD are ``"student"`` and, all members together, ``"teacher"``.
    """
    if isinstance(strategy, AdaptiveCCD):
        strategy = strategy.inner
    if isinstance(strategy, CCD):
        held: dict[str, Any] = {"student": strategy.student, "teacher": strategy.teachers}
    else:
        held = {
            name.strip("_"): value
            for name, value in vars(strategy).items()
            if any(True for _ in _modules(value))
        }
    return {
        name: sum(p.numel() for module in _modules(value) for p in module.parameters())
        for name, value in held.items()
    }


def _modules(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping):
        yield from (entry for entry in value.values() if isinstance(entry, nn.Module))
    elif isinstance(value, (list, tuple)):
        yield from (entry for entry in value if isinstance(entry, nn.Module))
