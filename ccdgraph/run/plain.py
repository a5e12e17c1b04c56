"""Configurations as plain values: laid over each other, hashed, and where two of them differ."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ccdgraph.config import to_dict


def plain_dict(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON gives them back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(to_dict(config)))
    return plain


def difference(begun: Any, asked: Any, where: str = "") -> str:
    """The first key in which two plain values differ with both values, or nothing.

    >>> difference({"dim": 8, "fit": {"lr": 0.1}}, {"dim": 8, "fit": {"lr": 0.2}})
    "'fit.lr' = 0.1, not 0.2"
    """
    if isinstance(begun, dict) and isinstance(asked, dict):
        pairs = {key: (begun.get(key), asked.get(key)) for key in {**begun, **asked}}
    elif isinstance(begun, list) and isinstance(asked, list) and len(begun) == len(asked):
        pairs = {str(place): pair for place, pair in enumerate(zip(begun, asked, strict=True))}
    else:
        return "" if begun == asked else f"'{where}' = {begun!r}, not {asked!r}"
    found = (difference(*pair, f"{where}.{key}".lstrip(".")) for key, pair in pairs.items())
    return next(filter(None, found), "")


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of a hash of plain values.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables with the entries of ``above`` in place of those of ``below``.

    >>> overlay({"fit": {"lr": 0.1, "epochs": 3}}, {"fit": {"lr": 0.2}})
    {'fit': {'lr': 0.2, 'epochs': 3}}
    """
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = overlay(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
