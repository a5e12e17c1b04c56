"""What every continual learner is: blocks go in, a scorer comes out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ccdgraph.data.stream import Block
from ccdgraph.nn import Backbone, BackboneConfig
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
    # Settings that the base models depend on: another run with the same may take them over.
    # Empty where there are none, or where they are not to be shared.
    BASE_NEEDS: ClassVar[tuple[str, ...]] = ()

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

    @property
    def has_base(self) -> bool:
        """Whether the base models were the last thing learnt, so that :meth:`state` holds them."""
        return False

    def take_base(self, state: Mapping[str, Tensor], blocks: Sequence[Block]) -> None:
        """Go on after the base models in ``state`` instead of training them.

        Args:
            state: :meth:`state` of a strategy whose settings in ``BASE_NEEDS`` are the same, when
                it had nothing but its base.
            blocks: the stream.
        """
        self.restore(state, blocks[:1])


class OneStage(Strategy):
    """A strategy that learns a block in a single stage, and serves one scorer."""

    stage: ClassVar[str] = "model"

    def __init__(self) -> None:
        self.index = -1
        self.served: Scorer | None = None
        self.seconds: dict[str, float] = {}

    @abstractmethod
    def serve(self, block: Block) -> Scorer:
        """Learn ``block``; an error on the way leaves everything as it was."""

    def update(self, block: Block) -> Scorer:
        """Learn ``block``, unless it is learnt already."""
        if block.index != self.index or self.served is None:
            started = time.perf_counter()
            self.served, self.index = self.serve(block), block.index
            self.seconds[f"{block.index}/{self.stage}"] = time.perf_counter() - started
            if self.on_stage is not None:
                self.on_stage()
        return self.served

    def scorers(self) -> dict[str, Scorer]:
        """What is served, under the name ``"model"``."""
        assert self.served is not None, "no block has been learnt yet"
        return {"model": self.served}


def load_model(config: BackboneConfig, values: Mapping[str, Tensor]) -> Backbone:
    """The model whose weights and ``sizes`` are ``values``, where they are, to evaluate."""
    num_users, num_items = (int(size) for size in values["sizes"])
    model = config.build(num_users, num_items)
    model.load_state_dict({name: value for name, value in values.items() if name != "sizes"})
    return model.to(next(iter(values.values())).device).eval()


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a state whose names begin with ``prefix``, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
