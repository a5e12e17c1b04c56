"""A label store: a folder of soft labels that one process writes and many read.

``labels.json`` lists the parts, one for each (teacher version, block), with size and SHA-256;
``parts/`` holds them (:mod:`ccdgraph.distill.labels.files`). A part is written and synced first;
the list is then replaced by a rename. So a reader sees a part whole or not at all, and a writer
that is killed leaves what it last committed. Parts never change: their file names carry their
checksum, and nothing is written twice under one (version, block).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccdgraph.data.describe import fingerprint
from ccdgraph.data.stream import Stream
from ccdgraph.distill.labels.files import decode
from ccdgraph.distill.labels.soft import StoredLabels

FORMAT = 1
MANIFEST, PARTS = "labels.json", "parts"


@dataclass(frozen=True)
class LabelPart:
    """One file of a store.

    Args:
        version: of the teacher.
        block: index of the block the labels are for.
        file: name of the file.
        rows: number of labels.
        users: users that have any.
        num_users: users the teacher knew.
        num_items: items the teacher knew.
        size: bytes.
        sha256: checksum of the file.
        cost: what the teacher spent on them, as the writer was told, such as ``{"seconds": 3.1}``;
            divided by the number of students it is what one of them costs.
    """

    version: str
    block: int
    file: str
    rows: int
    users: int
    num_users: int
    num_items: int
    size: int
    sha256: str
    cost: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def coverage(self) -> float:
        """Share of the users the teacher knew that have any label."""
        return self.users / self.num_users if self.num_users else 0.0


@dataclass(frozen=True)
class LabelManifest:
    """What a store holds.

    Args:
        data: what tells its data set from others, by name; see :func:`identity`.
        parts: in the order in which they were written.
    """

    data: dict[str, str]
    parts: tuple[LabelPart, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """Teacher versions, the oldest first."""
        return tuple(dict.fromkeys(part.version for part in self.parts))

    def find(self, version: str, block: int) -> LabelPart | None:
        """The part of (version, block), or ``None``."""
        found = (part for part in self.parts if (part.version, part.block) == (version, block))
        return next(found, None)


def identity(stream: Stream) -> dict[str, str]:
    """What a store of ``stream`` is checked by: its fingerprint and those of its vocabularies."""
    names = {"users": stream.users, "items": stream.items}
    external = {
        name: hashlib.sha256("\n".join(map(repr, vocabulary.ids.tolist())).encode()).hexdigest()
        for name, vocabulary in names.items()
    }
    return {"stream": fingerprint(stream), **external}


def read_manifest(folder: str | Path, data: Mapping[str, str] | None = None) -> LabelManifest:
    """What the store at ``folder`` holds at this moment.

    Args:
        folder: of the store.
        data: what the reader's data set is told by; ``None`` does not compare.

    Raises:
        ValueError: there is no store, it is damaged, of another format or of another data set.
    """
    path = Path(folder) / MANIFEST
    try:
        record = json.loads(path.read_bytes())
        version = record["format"]
    except FileNotFoundError as error:
        raise ValueError(f"'{folder}' is not a label store: it has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged: it is not the JSON that a store writes") from error
    if version != FORMAT:
        raise ValueError(
            f"'{path}' has format version {version}, this release reads {FORMAT}; write the labels "
            "again"
        )
    content = {name: record.get(name) for name in ("data", "parts")}
    if record.get("sha256") != digest_of(content):
        raise ValueError(f"'{path}' was altered: its SHA-256 is not the one it lists")
    parts = tuple(LabelPart(**part) for part in content["parts"])
    manifest = LabelManifest(content["data"], parts)
    different = sorted(k for k, v in (data or {}).items() if manifest.data.get(k) != v)
    if different:
        raise ValueError(
            f"'{folder}' holds labels of another data set: '{', '.join(different)}' differ; name "
            "another store"
        )
    return manifest


def read_labels(
    folder: str | Path, version: str, block: int, *, data: Mapping[str, str] | None = None
) -> StoredLabels:
    """The labels of one teacher version for one block, memory-mapped and checked.

    The checksum is computed on every call, so call it once for a block, not for every batch. Labels
    stay readable for who holds them after ``LabelWriter.retain`` deletes their file.

    Args:
        folder: of the store.
        version: of the teacher.
        block: the labels are for.
        data: what the reader's data set is told by; ``None`` does not compare.

    Raises:
        ValueError: there are no such labels (any more), or the file is cut or altered; named.
    """
    manifest = read_manifest(folder, data)
    part = manifest.find(version, block)
    if part is not None:
        try:
            return _open(Path(folder) / PARTS / part.file, part)
        except FileNotFoundError as error:
            manifest = read_manifest(folder)  # the part may have been deleted since
            if part in manifest.parts:
                raise ValueError(f"'{error.filename}' is missing; write the labels again") from None
    held = ", ".join(f"{p.version}/{p.block}" for p in manifest.parts) or "none"
    raise ValueError(f"'{folder}' has no labels of '{version}' for block {block}; it has {held}")


def _open(path: Path, part: LabelPart) -> StoredLabels:
    import pyarrow as pa

    size = path.stat().st_size
    if size != part.size:
        raise ValueError(f"'{path}' has {size} bytes, {MANIFEST} says {part.size}; write it again")
    with pa.memory_map(str(path)) as file:
        data = file.read_buffer()
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ValueError(f"'{path}' was altered: its SHA-256 is not the one in {MANIFEST}")
    return decode(data)


def digest_of(content: Any) -> str:
    """SHA-256 of what JSON keeps of ``content``."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
