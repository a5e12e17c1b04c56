"""Training steps recorded as CUDA graphs: one launch in place of hundreds."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Sequence[Any]], None]
Shapes = tuple[torch.Size, ...]

# Steps recorded at most: what a source of ever new shapes costs in memory.
_MOST = 8


class Replayed:
    """A step that is recorded once it sees batches of a shape again, and replayed after.

    Steps of these models take fractions of a millisecond on the device and many times that on the
    host, which launches hundreds of kernels one by one. The last batch of a source is shorter, and
    sources of different lengths end at different steps, so several shapes are recorded; they share
    their memory. A step that cannot be recorded (it asks the device for a size, or draws from a
    generator that is not named) runs as it is. What the recorded step reads from Python is fixed at
    that moment, so record anew whenever that changes.

    Args:
        step: takes batches (dataclasses of tensors) and works in place.
        generators: what it draws from, beside the device's own generator.

    >>> seen = []
    >>> Replayed(seen.append)([3])  # without tensors on a CUDA device nothing is recorded
    >>> seen
    [[3]]
    """

    def __init__(self, step: Step, generators: Sequence[torch.Generator] = ()) -> None:
        self.step, self.generators = step, generators
        self.recorded: dict[Shapes, tuple[torch.cuda.CUDAGraph, list[Tensor]]] = {}
        self.seen: set[Shapes] = set()
        self.possible = True

    def __call__(self, batches: Sequence[Any]) -> None:
        """Run the step."""
        tensors = _tensors(batches)
        if not (self.possible and tensors and all(tensor.is_cuda for tensor in tensors)):
            self.step(batches)
            return
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes in self.recorded:
            graph, inputs = self.recorded[shapes]
            for target, value in zip(inputs, tensors, strict=True):
                target.copy_(value)
            graph.replay()
        elif shapes in self.seen and len(self.recorded) < _MOST:
            self._record(shapes, batches, tensors)
        else:
            self.step(batches)  # also what fills the caches and the optimiser's state
            self.seen.add(shapes)

    def _record(self, shapes: Shapes, batches: Sequence[Any], tensors: Sequence[Tensor]) -> None:
        inputs = [tensor.clone() for tensor in tensors]
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        # Nothing that a step leaves behind is read by another, so they may take the same memory.
        pool = next((other.pool() for other, _ in self.recorded.values()), None)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                self.step(_with_tensors(batches, inputs))
        except RuntimeError:
            self.possible = False
            torch.cuda.synchronize()
            self.step(batches)
            return
        self.recorded[shapes] = graph, inputs
        graph.replay()


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """A stream of its own on a CUDA device: on the default one nothing can be recorded."""
    if device.type != "cuda":
        yield
        return
    outer, own = torch.cuda.current_stream(device), _stream(device)
    own.wait_stream(outer)
    with torch.cuda.stream(own):
        yield
    outer.wait_stream(own)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The same one every time: memory that was freed on a stream is kept for that stream alone."""
    return torch.cuda.Stream(device)


def _tensors(batches: Sequence[Any]) -> list[Tensor]:
    """Fields of all batches; a batch that several parts share counts once."""
    unique = {id(batch): batch for batch in batches if dataclasses.is_dataclass(batch)}
    values = (getattr(b, f.name) for b in unique.values() for f in dataclasses.fields(b))
    return [value for value in values if isinstance(value, Tensor)]


def _with_tensors(batches: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    """The same batches over other tensors, in the order of :func:`_tensors`."""
    rest, made = iter(tensors), {}
    for batch in batches:
        if dataclasses.is_dataclass(batch) and id(batch) not in made:
            fields = [f.name for f in dataclasses.fields(batch)]
            own = {n: next(rest) for n in fields if isinstance(getattr(batch, n), Tensor)}
            made[id(batch)] = dataclasses.replace(batch, **own)  # type: ignore[type-var]
    return [made.get(id(batch), batch) for batch in batches]
