"""Files to start from: a backbone, a term or a strategy that works, with its test."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Literal

Kind = Literal["backbone", "term", "strategy"]


def write_new(kind: Kind, name: str, folder: Path) -> tuple[Path, Path]:
    """Writes ``my_name.py`` and ``test_my_name.py`` of a class ``MyName``; returns both paths.

    Args:
        kind: what the class is.
        name: of the class, ``MyGAT``; that of the module follows from it.
        folder: where the files go.

    Raises:
        ValueError: the name is no class name, or a file is there already.
    """
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise ValueError(f"'{name}' is no name of a class; use letters and digits, as in 'MyGAT'")
    module = module_name(name)
    paths = (folder / f"{module}.py", folder / f"test_{module}.py")
    for path in paths:
        if path.exists():
            raise ValueError(f"'{path}' is there already; choose another name or --to folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in zip(paths, (f"{kind}.py.txt", f"test_{kind}.py.txt"), strict=True):
        text = (files("ccdgraph.cli") / "templates" / template).read_text(encoding="utf-8")
        with path.open("x", encoding="utf-8") as file:
            file.write(Template(text).substitute(name=name, module=module))
    return paths


def module_name(name: str) -> str:
    """The module of a class.

    >>> module_name("MyGAT"), module_name("GATv2Conv"), module_name("Anchored")
    ('my_gat', 'gatv2_conv', 'anchored')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", "_", name).lower()


def next_commands(kind: Kind, name: str, test: Path) -> list[str]:
    """What to type next."""
    path = f"{module_name(name)}:{name}"
    lines = [] if find_spec("pytest") else ["pip install pytest"]
    lines.append(f"python -m pytest {test}")
    if kind == "backbone":
        lines.append(f"ccdgraph demo --set ccd.student.backbone={path}")
    if kind == "strategy":
        lines.append(f'strategy = "{path}"    # in CONFIG.toml, then: ccdgraph run CONFIG.toml')
    return lines
