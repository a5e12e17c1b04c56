"""Configurations as plain values, and where two of them differ."""

from __future__ import annotations

import json
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
