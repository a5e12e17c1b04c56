"""The files of a data set: alone, in a folder, or in the archive they are handed out in."""

from __future__ import annotations

import fnmatch
import gzip
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ccdgraph.data.datasets.layouts import Dataset, Layout

Opener = Callable[[str], AbstractContextManager[Any]]


def open_files(path: Path, dataset: Dataset) -> Iterator[tuple[str, Layout, Any]]:
    """The place in messages, the layout and the open binary file of every part of a data set.

    Raises:
        ValueError: the folder or archive holds no such file, or several.
        FileNotFoundError: nothing is at ``path``.
    """
    if not path.exists():
        raise FileNotFoundError(2, f"no such file or folder; get it from {dataset.home}", str(path))
    with _names_within(path) as (names, opener):
        layout, chosen = _choose(path, names, dataset)
        for name in chosen:
            place = f"'{path}'" if path.is_file() and len(names) == 1 else f"'{path}/{name}'"
            with opener(name) as file:
                if name.endswith(".gz"):
                    with gzip.open(file) as unpacked:
                        yield place, layout, unpacked
                else:
                    yield place, layout, file


@contextmanager
def _names_within(path: Path) -> Iterator[tuple[list[str], Opener]]:
    """Names of the files at ``path``, and what opens one of them."""
    if path.is_dir():
        found = sorted([*path.glob("*"), *path.glob("*/*")])
        names = [file.relative_to(path).as_posix() for file in found if file.is_file()]
        yield names, lambda name: (path / name).open("rb")
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            yield names, lambda name: archive.open(name)
    elif {".tar", ".tgz"} & set(path.suffixes):
        with tarfile.open(path) as tar:
            names = [member.name for member in tar if member.isfile()]
            yield names, lambda name: _tar_member(tar, name)
    else:
        yield [path.name], lambda _: path.open("rb")


@contextmanager
def _tar_member(tar: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    file = tar.extractfile(name)
    assert file is not None, "only files are listed"
    with file:
        yield file


def _choose(path: Path, names: Sequence[str], dataset: Dataset) -> tuple[Layout, list[str]]:
    """The first layout whose files are there, and these files."""
    if path.is_file() and len(names) == 1:
        return _layout_of(names[0], dataset.layouts), [names[0]]
    for layout in dataset.layouts:
        found = [_matches(names, pattern) for pattern in layout.files]
        for pattern, matches in zip(layout.files, found, strict=True):
            if len(matches) > 1:
                raise ValueError(
                    f"'{path}' holds {len(matches)} files like {pattern!r} ({matches[0]}, "
                    f"{matches[1]}); give the path of one of them"
                )
        if all(found):
            return layout, [matches[0] for matches in found]
    wanted = " or ".join(" with ".join(map(repr, layout.files)) for layout in dataset.layouts)
    raise ValueError(f"'{path}' holds no {wanted}; give the path of the file, or of its folder")


def _layout_of(name: str, layouts: Sequence[Layout]) -> Layout:
    fitting = (one for one in layouts for pattern in one.files if _matches([name], pattern))
    return next(fitting, layouts[0])


def _matches(names: Sequence[str], pattern: str) -> list[str]:
    bare = ((name, PurePosixPath(name).name.removesuffix(".gz")) for name in names)
    return [
        name
        for name, last in bare
        if fnmatch.fnmatchcase(last, pattern) and not last.startswith(".")
    ]
