"""Working through the tasks of a suite, one after another or in parallel processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ccdgraph.bench.cell import Task, fail, perform, read_error

# (label, whether it succeeded, seconds)
OnTask = Callable[[str, bool, float], None]


def work(
    tasks: Sequence[Task],
    jobs: int | None = None,
    on_task: OnTask | None = None,
    limit: float | None = None,
) -> None:
    """Performs what is not done yet; a task that fails is written down and the others go on.

    Args:
        tasks: the work; base models come before the cells that take them over.
        jobs: processes at a time, each with its share of the cores and, where there are several,
            a GPU by turns; every task has a process to itself, so its peak memory is its own.
            ``None`` works in this process.
        on_task: is told when a task has ended.
        limit: seconds after which no task is begun.

    Raises:
        ValueError: ``jobs`` is below 1.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"'jobs' is {jobs}; it must be at least 1")
    left = [task for task in tasks if not task.done]
    needed = {task.base.folder for task in left if task.base is not None}
    left = [task for task in left if not task.only_base or task.folder in needed]
    tell = on_task or (lambda label, succeeded, seconds: None)
    end = math.inf if limit is None else time.perf_counter() + limit
    if jobs is None:
        _one_by_one(left, tell, end)
    else:
        _in_processes(left, jobs, tell, end)


def _one_by_one(tasks: Sequence[Task], tell: OnTask, end: float) -> None:
    for task in tasks:
        if (started := time.perf_counter()) >= end:
            return
        tell(task.label, _has_base(task) and perform(task), time.perf_counter() - started)


def _has_base(task: Task) -> bool:
    """Whether the shared base models are there; their failure is that of the task."""
    if task.base is None or task.base.done:
        return True
    fail(task, f"its shared base models failed: {read_error(task.base.error)}")
    return False


def _in_processes(tasks: Sequence[Task], jobs: int, tell: OnTask, end: float) -> None:
    waiting, running = list(tasks), dict[int, tuple[BaseProcess, Task, float]]()
    with _ended(running):
        while waiting or running:
            if time.perf_counter() >= end:
                waiting.clear()
                if not running:
                    break
            for slot in set(range(jobs)) - set(running):
                training = {task.folder for _, task, _ in running.values()}
                training |= {task.folder for task in waiting if task.only_base}
                ready = (t for t in waiting if not t.base or t.base.folder not in training)
                task = next(ready, None)
                if task is None:
                    break
                waiting.remove(task)
                if _has_base(task):
                    running[slot] = (_start(task, slot, jobs), task, time.perf_counter())
                else:
                    tell(task.label, False, 0.0)
            wait([process.sentinel for process, _, _ in running.values()])
            for slot in [s for s, (process, _, _) in running.items() if not process.is_alive()]:
                process, task, started = running.pop(slot)
                process.join()
                if process.exitcode not in (0, 1):  # killed from outside, as for its memory
                    fail(task, f"its process ended with exit code {process.exitcode}")
                tell(task.label, process.exitcode == 0, time.perf_counter() - started)


@contextmanager
def _ended(running: dict[int, tuple[BaseProcess, Task, float]]) -> Iterator[None]:
    """Ends what is still running on the way out; it goes on from its last stage another time."""
    try:
        yield
    finally:
        for process, _, _ in running.values():
            process.terminate()
        for process, _, _ in running.values():
            process.join()


def _start(task: Task, slot: int, jobs: int) -> BaseProcess:
    process: BaseProcess = _clean_start().Process(
        target=_child, args=(task, slot, max(1, _cores() // jobs)), daemon=True
    )
    process.start()
    return process


def _clean_start() -> Any:
    """How processes start: a fork of this one would have its threads and CUDA context, unusable.

    Without CUDA they are forked from a server that has imported all libraries, which takes seconds.
    With it each starts anew: on an H200 none of those forked could initialise CUDA.
    """
    # The server's start method is absent on Windows.
    if torch.version.cuda or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _child(task: Task, slot: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    # torch says so once, of the format that every graph is multiplied in
    for message in (
        "Sparse CSR tensor support is in beta",
        "Sparse invariant checks are implicitly",
    ):
        warnings.filterwarnings("ignore", message)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(slot % torch.cuda.device_count())
    raise SystemExit(0 if perform(task) else 1)


def _end_with_parent() -> None:
    """Ends this process when its parent is killed: the next one takes up the same folders."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "started by another process"
    wait([parent.sentinel])
    os._exit(1)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # absent on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of a suite's folder; ends with the process, however it ends.

    Raises:
        ValueError: another process is at work there.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process runs a suite in '{folder}'; wait for it or name another folder"
            ) from error
        yield
