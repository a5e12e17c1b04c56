"""The writing side of a label store."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Self

from ccdgraph.checkpoint import atomic_write_bytes, atomic_write_text
from ccdgraph.distill.labels.files import encode
from ccdgraph.distill.labels.soft import SoftLabels
from ccdgraph.distill.labels.store import (
    FORMAT,
    MANIFEST,
    PARTS,
    LabelManifest,
    LabelPart,
    digest_of,
    read_manifest,
)

LOCK = "writer.lock"


class LabelWriter:
    """The one writer of a store; a context manager.

    The lock is the kernel's and ends with the process, however it ends, and with the children that
    it forked meanwhile; on network file systems it holds as far as ``flock`` does.

    Args:
        folder: of the store; made when missing.
        data: what tells the data set from others, as ``identity`` gives it.

    Raises:
        ValueError: another process writes, the store is of another data set or format, or the
            folder holds something else.
    """

    def __init__(self, folder: str | Path, data: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        _check_place(self.folder)
        (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            if not (self.folder / MANIFEST).exists():
                self._commit(LabelManifest(dict(data)))
            self.manifest = read_manifest(self.folder, data)
            self._clean()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def write(
        self,
        labels: SoftLabels,
        *,
        num_users: int,
        num_items: int,
        half: bool = False,
        cost: Mapping[str, float] | None = None,
    ) -> LabelPart:
        """Add the labels of one (version, block) and commit; writing the same again does nothing.

        Args:
            labels: one version, one block; a user may be missing.
            num_users: users the teacher knew.
            num_items: items the teacher knew.
            half: store scores as float16 instead of to the last bit.
            cost: what the teacher spent on them, to be kept beside them.

        Raises:
            ValueError: other labels are there already, a column is not sound, or the disk is full;
                the store is as before.
        """
        self._check_open()
        version, block = labels.version, labels.block
        if not re.fullmatch(r"[\w.@+-]{1,100}", version, re.ASCII) or block < 0:
            raise ValueError(
                f"'version' is '{version}' and 'block' {block}, expected a name of letters, digits "
                "and '._@+-', and a number of at least 0"
            )
        content, users = encode(labels, num_users=num_users, num_items=num_items, half=half)
        digest = hashlib.sha256(content).hexdigest()
        file = f"{version}-{block}-{digest[:16]}.arrow"
        part = LabelPart(
            *(version, block, file, len(labels), users, num_users, num_items),
            *(content.size, digest, dict(cost or {})),
        )
        found = self.manifest.find(version, block)
        if found == part:
            return found
        if found is not None:
            raise ValueError(
                f"'{self.folder}' has other labels of '{version}' for block {block}; give the "
                "teacher a new version"
            )
        atomic_write_bytes(self.folder / PARTS / file, content)
        self._commit(LabelManifest(self.manifest.data, (*self.manifest.parts, part)))
        return part

    def retain(self, versions: Collection[str]) -> int:
        """Keep the labels of these teacher versions and delete all others; bytes set free.

        ``writer.retain(writer.manifest.versions[-2:])`` keeps the two newest.
        """
        self._check_open()
        unknown = sorted(set(versions) - set(self.manifest.versions))
        if unknown:
            raise ValueError(
                f"'versions' has {unknown}, the store {list(self.manifest.versions)}; nothing was "
                "deleted"
            )
        kept = tuple(part for part in self.manifest.parts if part.version in versions)
        self._commit(LabelManifest(self.manifest.data, kept))
        return self._clean()

    def _check_open(self) -> None:
        if self._lock < 0:
            raise ValueError(f"the writer of '{self.folder}' is closed; open a new one")

    def _commit(self, manifest: LabelManifest) -> None:
        content = {"data": manifest.data, "parts": [asdict(part) for part in manifest.parts]}
        record = {"format": FORMAT, "sha256": digest_of(content), **content}
        atomic_write_text(self.folder / MANIFEST, json.dumps(record, indent=1) + "\n")
        self.manifest = manifest

    def _clean(self) -> int:
        """Delete what the list does not name: of dropped versions and of killed writers."""
        listed, freed = {part.file for part in self.manifest.parts}, 0
        for path in (self.folder / PARTS).iterdir():
            if path.name not in listed and re.fullmatch(r".*\.arrow(\.tmp)?", path.name):
                freed += path.stat().st_size
                path.unlink()
        return freed


def _check_place(folder: Path) -> None:
    """Refuse a folder of other files, and one whose parts a new list would orphan."""
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    own = {LOCK, PARTS, f".{MANIFEST}.tmp"}  # all that a first writer can leave when killed
    others = {path.name for path in folder.iterdir()} - own
    others |= {path.name for path in (folder / PARTS).glob("*")}
    if others:
        raise ValueError(
            f"'{folder}' has no {MANIFEST} but holds '{min(others)}'; name an empty folder, or put "
            "the list back"
        )


def _locked(folder: Path) -> int:
    """The descriptor of the lock file, locked."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(lock, 20, 0).decode() or "unknown"
        os.close(lock)
        raise ValueError(
            f"'{folder}' has a writer already, process {owner}; wait until it ends"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
