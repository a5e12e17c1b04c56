"""How the benchmarks measure time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


class Clock:
    """Median seconds on a device; on a CPU those of its cores, which other work cannot stretch."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.now = time.perf_counter if device.type == "cuda" else time.process_time

    def __call__(self, run: Callable[[], Any]) -> float:
        """Median seconds of ``run`` after one call that does not count."""
        return self.by_turns(run)[0]

    def by_turns(self, *runs: Callable[[], Any]) -> list[float]:
        """Median seconds of each after one round that does not count, one call of each a round."""
        rounds = [[self.once(run)[0] for run in runs] for _ in range(self.repeats + 1)]
        return [statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True)]

    def once(self, run: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of one call, and what it returns."""
        self.wait()
        started = self.now()
        result = run()
        self.wait()
        return self.now() - started, result

    def on_device(self, run: Callable[[], Any], times: int = 20) -> float:
        """Median seconds that one of many calls, recorded and replayed, takes on a CUDA device.

        Training replays its steps in the same way; launched one by one, calls this short take as
        long as the host needs to launch them. On a CPU it is :meth:`__call__`.
        """
        if self.device.type != "cuda":
            return self(run)
        stream, graph = torch.cuda.Stream(self.device), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(times):
                run()
        ends = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(6)]
        for first, last in ends:
            first.record()
            graph.replay()
            last.record()
        self.wait()
        return statistics.median(first.elapsed_time(last) for first, last in ends[1:]) / times / 1e3

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
