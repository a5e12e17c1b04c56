"""Typed configuration from TOML, classes by import path, and derived random generators."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

Config = TypeVar("Config")

NONE = "none"  # TOML has no null: this string stands for None wherever a field may be None


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence that names the field."""


def load(cls: type[Config], path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Reads a TOML file as the dataclass ``cls``.

    Args:
        cls: a dataclass, nested as the tables of the file are.
        path: the file.
        overrides: ``"train.lr=1e-3"``: a dotted path and a TOML literal, read as a plain string
            where it is not one. ``"none"`` is ``None`` for a field that may be ``None``.

    Raises:
        ConfigError: the file cannot be read, or a key, a type or a value does not fit.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both ValueErrors
        raise ConfigError(f"'{path}' is not valid TOML: {error}") from error
    for override in overrides:
        apply_override(table, override)
    try:
        return from_dict(cls, table)
    except ConfigError as error:
        raise ConfigError(f"'{path}': {error}") from error


def apply_override(table: dict[str, Any], override: str) -> None:
    """Sets one entry of ``table`` in place, as an override of `load` does."""
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"override '{override}' is not of the form 'a.b=value'")
    node: Any = table
    for key in keys[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else _entry(node, key, override)
    if isinstance(node, dict):
        node[keys[-1]] = _literal(text.strip())
    else:
        _entry(node, keys[-1], override)
        node[int(keys[-1])] = _literal(text.strip())


def from_dict(cls: type[Config], mapping: Mapping[str, Any], where: str = "") -> Config:
    """Builds the dataclass ``cls`` from nested mappings; unknown keys and wrong types are refused.

    Args:
        cls: a dataclass whose fields are numbers, strings, tuples, mappings or dataclasses.
        mapping: field names and values.
        where: dotted path of ``mapping`` in the whole, for messages.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise ConfigError(f"unknown key '{_join(where, key)}'{_suggestion(key, fields)}")
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in mapping:
            raise ConfigError(f"key '{_join(where, name)}' is missing; it has no default")
    values = {k: _convert(v, hints[k], _join(where, k)) for k, v in mapping.items()}
    try:
        return cls(**values)
    except ValueError as error:  # a dataclass may check its values in __post_init__
        raise ConfigError(f"'{where}': {error}" if where else str(error)) from error


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dicts of the fields of the dataclass ``config``; `from_dict` undoes it."""
    return dataclasses.asdict(config)


def to_toml(config: Any) -> str:
    """TOML text that `load` reads back to an equal ``config``, defaults written out."""
    return "\n".join(_table(to_dict(config), "")).lstrip("\n") + "\n"


def resolve(path: str) -> Any:
    """The object that ``"module:Name"`` names.

    >>> resolve("torch.nn:Linear") is torch.nn.Linear
    True
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"'{path}' names no class; write 'module:Name', as in 'my_gat:GAT'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"cannot import '{module_name}' of '{path}': {error}") from error
    if name not in vars(module):
        raise ConfigError(f"no '{name}' in module '{module_name}'{_suggestion(name, vars(module))}")
    return vars(module)[name]


def class_path(cls: type) -> str:
    """``"module:Name"`` of a class: what `resolve` takes and checkpoints record.

    >>> class_path(torch.nn.MSELoss)
    'torch.nn.modules.loss:MSELoss'
    """
    return f"{cls.__module__}:{cls.__qualname__}"


def rng(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose seed is a hash of ``parts``, equal in every process and on every machine.

    Deriving a generator for each use instead of sharing one keeps draws independent: adding a
    teacher or dropping a term shifts nobody else's.

    >>> rng(0, "student", 3).initial_seed() == rng(0, "student", 3).initial_seed()
    True
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    seed = int.from_bytes(digest[:8], "big") >> 1  # 63 bits: manual_seed takes a signed integer
    return torch.Generator(device=device).manual_seed(seed)


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _convert_union(value, args, where)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            choices = ", ".join(repr(choice) for choice in args)
            raise ConfigError(f"'{where}' is {value!r}, expected one of {choices}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return _convert_tuple(value, args, where)
    if isinstance(value, Mapping):
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return from_dict(hint, value, where)
        if origin in (dict, Mapping):
            return {k: _convert(v, args[1], _join(where, k)) for k, v in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:  # not isinstance: True is no int
        return value
    raise ConfigError(f"'{where}' is {_describe(value)}, expected {_name(hint)}")


def _convert_union(value: Any, members: Sequence[Any], where: str) -> Any:
    if NoneType in members and (value is None or value == NONE):
        return None
    members = [member for member in members if member is not NoneType]
    if len(members) == 1:
        return _convert(value, members[0], where)
    for member in members:
        with contextlib.suppress(ConfigError):  # the next member may take it
            return _convert(value, member, where)
    expected = " or ".join(_name(member) for member in members)
    raise ConfigError(f"'{where}' is {_describe(value)}, expected {expected}")


def _convert_tuple(value: Sequence[Any], args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    hints = args[:1] * len(value) if args[1:] == (Ellipsis,) else args
    if len(hints) != len(value):
        raise ConfigError(f"'{where}' has {len(value)} values, expected {len(hints)}")
    pairs = enumerate(zip(value, hints, strict=True))
    return tuple(_convert(v, hint, _join(where, str(index))) for index, (v, hint) in pairs)


def _entry(array: Any, index: str, override: str) -> Any:
    if isinstance(array, list) and index.isdecimal() and int(index) < len(array):
        return array[int(index)]
    raise ConfigError(f"override '{override}': there is no table or entry to hold '{index}'")


def _literal(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _table(table: Mapping[str, Any], where: str) -> list[str]:
    lines, nested = [], []
    for key, value in table.items():
        path = _join(where, _key(key))
        if isinstance(value, Mapping):
            nested += ["", f"[{path}]", *_table(value, path)]
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            for entry in value:
                nested += ["", f"[[{path}]]", *_table(entry, path)]
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    return lines + nested


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, str):
        text = json.dumps(NONE if value is None else value, ensure_ascii=False)
        return text.replace("\x7f", "\\u007f")  # the one character JSON leaves bare, TOML not
    return repr(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _describe(value: Any) -> str:
    text = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:37]}..."
    return f"the {type(value).__name__} {text}"


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
