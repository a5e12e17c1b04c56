"""What every continual learner is: blocks go in, a scorer comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ccdgraph.data.stream import Block
from ccdgraph.ranking import Scorer

# (stage, epochs done, epochs): what a progress display needs.
OnProgress = Callable[[str, int, int], None]


class Strategy(ABC):
    """Learns a stream block by block; it never sees a block before its turn.

    A block is learnt in stages. After each, ``on_stage`` is called, so a caller can store
    :meth:`state` there and a run that is cut off goes on after the last finished stage.
    """

    on_progress: OnProgress | None = None
    on_stage: Callable[[], None] | None = None
    # What was noticed on the stream, as named tuples; a run writes it down.
    events: Sequence[Any] = ()

    @abstractmethod
    def update(self, block: Block) -> Scorer:
        """Learn ``block`` and return what is served from now on."""

    @abstractmethod
    def scorers(self) -> Mapping[str, Scorer]:
        """Everything worth measuring after the last block by name; the served one is first."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All tensors needed to go on; what a block holds is not among them."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        """Take up :meth:`state`; ``blocks`` are those that had been begun by then."""


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a state whose names begin with ``prefix``, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
