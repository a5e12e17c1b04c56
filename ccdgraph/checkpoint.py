"""Checkpoints: a directory of safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = 1
TENSORS, META = "tensors.safetensors", "meta.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or used; one sentence that names the file."""


def save(folder: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Writes ``folder``, replacing a checkpoint already there.

    The files are written beside ``folder`` under a temporary name, synced to disk and renamed, so
    a reader or a killed process sees the old checkpoint or the new one and never half of one. One
    writer per folder.

    Args:
        folder: the directory to make; its parents are made too.
        tensors: dense tensors on any device.
        meta: what JSON can hold; ``class_path`` and ``sizes`` are what `check` compares.

    Raises:
        CheckpointError: the disk is full or the place cannot be written.
    """
    folder = Path(folder)
    # safetensors takes neither strides nor shared memory, as between tied parameters
    whole = {
        k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()
    }
    data = safetensors.torch.save(whole)
    about = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    record = {"format": FORMAT, "tensors": about, "meta_sha256": _digest(meta), "meta": meta}
    text = json.dumps(record, indent=2) + "\n"
    temporary, old = _beside(folder, "tmp"), _beside(folder, "old")
    with _writing(folder, temporary):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        _write(temporary / TENSORS, data)
        _write(temporary / META, text.encode())
        _sync(temporary)
        if folder.exists():  # a directory cannot be renamed over another one
            _remove(old)
            folder.rename(old)
        temporary.rename(folder)  # killed just before this line, `load` still finds the old one
        _sync(folder.parent)
    _remove(old)


class Writer:
    """Saves checkpoints while the work goes on: tensors are copied at once and written meanwhile.

    One is under way at a time; the next waits for it, as does the end of the ``with`` block. Who
    waits is told by `CheckpointError` what went wrong. A killed process leaves the one before.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(
        self, folder: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
    ) -> None:
        """As the function `save`, of the values that ``tensors`` and ``meta`` have now."""
        now = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        said = json.loads(json.dumps(meta))
        self.wait()
        self._pending = self._pool.submit(save, folder, now, said)

    def wait(self) -> None:
        """Until what was saved is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self.wait()


def load(
    folder: str | Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on ``device``, and the meta data that `save` was given.

    Raises:
        CheckpointError: a file is missing, cut, altered or of another format version.
    """
    folder = _current(Path(folder))
    record = _read_meta(folder / META)
    if _digest(record["meta"]) != record.get("meta_sha256"):
        raise CheckpointError(f"'{folder / META}' was altered: its SHA-256 is not the one it lists")
    path, about = folder / TENSORS, record["tensors"]
    data = _read(path)
    if len(data) != about["size"]:
        raise CheckpointError(f"'{path}' has {len(data)} bytes, {META} says {about['size']}")
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise CheckpointError(f"'{path}' was altered: its SHA-256 is not the one in {META}")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"'{path}' is not a safetensors file: {error}") from error
    return {name: tensor.to(device) for name, tensor in tensors.items()}, record["meta"]


def exists(folder: str | Path) -> bool:
    """Whether `load` finds a checkpoint at ``folder``."""
    return _current(Path(folder)).is_dir()


def check(meta: Mapping[str, Any], *, class_path: str, sizes: Mapping[str, int]) -> None:
    """Refuses a checkpoint of another class or size, saying which of them differs.

    Args:
        meta: as `load` returned it.
        class_path: ``"module:Name"`` of the class to fill.
        sizes: its sizes by name, such as ``{"num_users": 190, "dim": 8}``.

    Raises:
        CheckpointError: something differs.
    """
    differences = []
    if meta.get("class_path") != class_path:
        differences.append(f"class '{meta.get('class_path')}' where '{class_path}' is expected")
    held = meta.get("sizes", {})
    for name in sorted({*held, *sizes}):
        if held.get(name) != sizes.get(name):
            differences.append(f"{name} {held.get(name)} where {sizes.get(name)} is expected")
    if differences:
        raise CheckpointError(f"the checkpoint holds {', '.join(differences)}")


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file whole or not at all; its folder is made when missing."""
    path = Path(path)
    temporary = _beside(path, "tmp")
    with _writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, data)
        temporary.replace(path)
        _sync(path.parent)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file whole or not at all; its folder is made when missing."""
    atomic_write_bytes(path, text.encode())


@contextmanager
def _writing(target: Path, temporary: Path) -> Iterator[None]:
    """Removes ``temporary`` before and after, and turns an OSError into one sentence."""
    _remove(temporary)  # left by a process that was killed
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; free some space and run again" if full else error.strerror
        raise CheckpointError(f"cannot write '{target}': {why}") from error
    finally:
        _remove(temporary)


def _digest(meta: Any) -> str:
    """SHA-256 of what JSON keeps of ``meta``."""
    plain = json.loads(json.dumps(meta))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")


def _current(folder: Path) -> Path:
    """``folder``, or the one it was to replace when the process died between two renames."""
    old = _beside(folder, "old")
    return old if old.is_dir() and not folder.exists() else folder


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # not there, or in a place that the write itself will refuse
            path.unlink()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes renames in ``folder`` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path}' is missing") from error
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from error


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_read(path))
    except ValueError as error:  # not JSON, or not even text
        raise CheckpointError(f"'{path}' is not valid JSON: {error}") from error
    version = record.get("format") if isinstance(record, dict) else None
    if version != FORMAT:
        raise CheckpointError(f"'{path}' has format version {version}, this release reads {FORMAT}")
    about = record.get("tensors")
    if not (isinstance(about, dict) and {"sha256", "size"} <= set(about) and "meta" in record):
        raise CheckpointError(f"'{path}' lacks the size and SHA-256 of {TENSORS} or the meta data")
    return dict(record)
