"""The one loop that minimises objectives, the same for every model and method."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ccdgraph.capture import Replayed, own_stream
from ccdgraph.config import rng
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone, Embeddings
from ccdgraph.nn.multvae import MultVAE
from ccdgraph.objective import BPR as BPR
from ccdgraph.objective import Hinge as Hinge
from ccdgraph.objective import MultinomialVAE as MultinomialVAE
from ccdgraph.objective import Objective as Objective
from ccdgraph.objective import Part as Part
from ccdgraph.objective import SampledSoftmax as SampledSoftmax
from ccdgraph.objective import SoftBCE as SoftBCE
from ccdgraph.objective import Term as Term
from ccdgraph.objective import Views
from ccdgraph.objective import ranking as ranking
from ccdgraph.objective import reconstruction as reconstruction
from ccdgraph.sampling import Batches
from ccdgraph.selection import Selection


@dataclass(frozen=True)
class FitConfig:
    """How long and how fast to train.

    Args:
        epochs: passes over every objective, at most.
        lr: Adam's learning rate.
        weight_decay: coupled L2 penalty inside Adam, as in the papers' code.
        patience: epochs without progress in validation before stopping; 0 never stops early.
        min_steps: steps of the first objective that ``epochs`` is raised to reach. A small block
            has few steps an epoch, while a fresh student needs as many as on a large one.
        record: on a CUDA device, record a step of every objective and replay it.
        max_steps: steps of an epoch of each objective, at most; 0 sets no limit. With a limit an
            epoch does not see all its batches.
        fanout: neighbours drawn in each round of message passing around what a step reads, nearest
            first (-1 takes all); ``None`` propagates over the whole graph in every step.
    """

    epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 1e-4
    patience: int = 0
    min_steps: int = 0
    record: bool = True
    max_steps: int = 0
    fanout: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FitResult:
    """Losses and validation values by epoch, and the epoch whose weights were kept."""

    loss: tuple[float, ...]
    valid: tuple[float, ...]
    best_epoch: int


def fit(
    model: Backbone,
    graph: BipartiteGraph,
    objectives: Sequence[Objective],
    config: FitConfig,
    *,
    seed: tuple[int | str, ...] = (0,),
    validate: Callable[[Embeddings], float | Sequence[float]] | None = None,
    on_epoch: Callable[[int, int, float], None] | None = None,
) -> FitResult:
    """Train ``model`` in place; with ``validate`` the best epoch's weights are kept.

    Args:
        model: backbone to train.
        graph: graph it propagates over.
        objectives: swept in order in each epoch.
        config: epochs, learning rate, weight decay, patience.
        seed: parts of the seed of whatever the model draws (dropout, variational noise).
        validate: higher is better; called after every epoch with the embeddings. Of several values
            the first chooses the epoch, and an improvement of any is progress.
        on_epoch: called after every epoch with (epochs done, epochs, mean loss of a step).

    Raises:
        FloatingPointError: the loss of an epoch is not finite.
    """
    terms = nn.ModuleList(part.term for objective in objectives for part in objective.parts)
    trainable = nn.ModuleList([model, terms])
    # The sizes of a sampled subgraph differ from step to step, so there is no step to replay.
    record = config.record and graph.device.type == "cuda" and config.fanout is None
    views = Views(graph, config.fanout, model.depth, rng(*seed, "around", device=graph.device))
    optimizer = _adam(trainable, config, capturable=record)
    sweep = partial(_Sweep, model, views, optimizer, record=record, max_steps=config.max_steps)
    sweeps = [sweep(objective) for objective in objectives]
    history, kept, best_state = [], Selection(), None
    epoch, epochs = 0, config.epochs
    while epoch < epochs:
        trainable.train()
        if isinstance(model, MultVAE):
            model.begin_epoch(rng(*seed, "noise", epoch, device=graph.device))
        with _seeded(*seed, "dropout", epoch, device=graph.device), own_stream(graph.device):
            totals, steps = zip(*(sweep(epoch) for sweep in sweeps), strict=True)
            loss = float(torch.stack(totals).sum()) / max(sum(steps), 1)
        epochs = max(config.epochs, math.ceil(config.min_steps / max(steps[0], 1)))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of epoch {epoch} is {loss}; lower 'lr' ({config.lr}) or look for "
                "non-finite teacher scores"
            )
        history.append(loss)
        if validate is not None and kept.note(validate(embed(model, graph))):
            best_state = copy.deepcopy(model.state_dict())
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs, loss)
        if validate is not None and config.patience and kept.waited >= config.patience:
            break
        epoch += 1
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    best = len(history) - 1 if validate is None else kept.best_epoch
    return FitResult(tuple(history), tuple(kept.valid), best)


@torch.no_grad()
def embed(model: Backbone, graph: BipartiteGraph) -> Embeddings:
    """Embeddings of ``model`` in evaluation mode, without gradient; the mode is put back."""
    training = model.training
    out: Embeddings = model.eval()(graph)
    model.train(training)
    return out.detach()


def _adam(trainable: nn.Module, config: FitConfig, *, capturable: bool) -> torch.optim.Adam:
    return torch.optim.Adam(
        trainable.parameters(),
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=True,
        capturable=capturable,
    )


@contextlib.contextmanager
def _seeded(*seed: int | str, device: torch.device) -> Iterator[None]:
    """Torch's global generators, which the dropout of a PyG module reads, seeded and put back."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(rng(*seed).initial_seed())
        yield


class _Sweep:
    """Passes of the optimiser over one objective's batches, one an epoch."""

    def __init__(
        self,
        model: Backbone,
        views: Views,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        *,
        record: bool,
        max_steps: int,
    ) -> None:
        self.objective, self.record, self.max_steps = objective, record, max_steps
        self.current = partial(embed, model, views.graph)
        # On the device: reading the loss would make the host wait in every step, and a recorded
        # step finds the weights of later epochs where it found those of its own.
        self.total = torch.zeros((), device=views.graph.device)
        self.weight = torch.ones(len(objective.parts), device=views.graph.device)
        terms = [part.term for part in objective.parts]
        self.step = partial(_step, model, views, terms, optimizer, self.weight, self.total)
        self.record_with = [generator for term in terms for generator in term.draws()]
        self.fixed: list[Hashable] = []
        self.run: Callable[[Sequence[Any]], None] | None = None

    def __call__(self, epoch: int) -> tuple[Tensor, int]:
        """Summed loss and number of the steps of an epoch."""
        parts = self.objective.parts
        for part in parts:
            part.term.begin_epoch(epoch)
        weights = [part.weight(epoch) if callable(part.weight) else part.weight for part in parts]
        self.weight.copy_(torch.tensor(weights))
        self.total.zero_()
        fixed = [part.term.fixed(epoch) for part in parts]
        if self.run is None or fixed != self.fixed:
            self.run = Replayed(self.step, self.record_with) if self.record else self.step
            self.fixed = fixed
        steps = 0
        every = _steps(self.objective, epoch, self.current)
        for batches in islice(every, self.max_steps or None):
            self.run(batches)
            steps += 1
        return self.total, steps


def _step(
    model: Backbone,
    views: Views,
    terms: Sequence[Term],
    optimizer: torch.optim.Optimizer,
    weight: Tensor,
    total: Tensor,
    batches: Sequence[Any],
) -> None:
    """One step of the optimiser; its loss is added to ``total``."""
    out, pairs = model(views(terms, batches)), zip(terms, batches, strict=True)
    loss = (torch.stack([term(out, batch) for term, batch in pairs]) * weight).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    total.add_(loss.detach())


def _steps(
    objective: Objective, epoch: int, current: Callable[[], Embeddings]
) -> Iterator[list[Any]]:
    """One batch for every part, as often as the first part's source has one."""
    first, *others = objective.parts
    if first.batches is None:
        raise ValueError("the first part of an objective has no 'batches'; it sets the steps")
    sources = [
        None if part.batches is None else _endless(part.batches, epoch, current) for part in others
    ]
    for batch in first.batches.epoch(epoch, current):
        yield [batch, *(next(source) if source else batch for source in sources)]


def _endless(batches: Batches, epoch: int, current: Callable[[], Embeddings]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches.epoch(epoch, current):
            empty = False
            yield batch
        if empty:
            raise ValueError(f"'batches' is empty in epoch {epoch}; leave the part out")
