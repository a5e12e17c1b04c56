"""Fetching a published archive, whole and unchanged or not at all."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from pathlib import Path

from ccdgraph.data.datasets.layouts import Dataset

logger = logging.getLogger(__name__)
_PIECE = 2**20


def download(name: str, dataset: Dataset, path: Path) -> Path:
    """The archive of a data set at ``path``, fetched unless it is there.

    Its publisher's terms hold; they are on the page that ``Dataset.home`` names.

    Args:
        name: of the data set, for messages.
        dataset: where its archive is, and the MD5 that its publisher gives of it.
        path: the file to write, or an existing folder to put it into.

    Raises:
        ValueError: the data set has no archive that may be fetched, or what came has another MD5.
        OSError: it cannot be fetched.
    """
    if not dataset.archive:
        raise ValueError(
            f"'{name}' is not fetched: its terms or a missing checksum stand against it; get it "
            f"from {dataset.home} and pass its path without 'download'"
        )
    path = path / dataset.archive.rpartition("/")[2] if path.is_dir() else path
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        found = _fetch(dataset.archive, part)
        if found != dataset.md5:
            raise ValueError(
                f"'{dataset.archive}' has MD5 {found}, expected {dataset.md5}; it was cut short or "
                "has changed, try again"
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _fetch(address: str, part: Path) -> str:
    """Writes what lies at ``address``, with progress in the log; its MD5."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with urllib.request.urlopen(address, timeout=60) as source, part.open("wb") as target:
            total = int(source.headers.get("Content-Length") or 0)
            while piece := source.read(_PIECE):
                target.write(piece)
                digest.update(piece)
                size += len(piece)
                logger.info("%s: %d of %d MiB", address, size // _PIECE, total // _PIECE)
    except urllib.error.URLError as error:
        raise OSError(
            f"cannot fetch '{address}' ({error.reason}); pass the path of a copy"
        ) from error
    return digest.hexdigest()
