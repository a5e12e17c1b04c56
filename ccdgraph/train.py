"""Terms, objectives and the one loop that minimises them."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ccdgraph import losses
from ccdgraph.capture import Replayed, own_stream
from ccdgraph.config import rng
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.nn.backbone import Backbone, Embeddings
from ccdgraph.nn.multvae import MultVAE
from ccdgraph.sampling import Batches, Entities, Pairs, Triplets


class Term(nn.Module):
    """One addend of a loss: embeddings and a batch to a scalar.

    Distillers and continual regularisers are terms as well, so each is written once for every
    backbone. Learnable parts are ordinary parameters; they join the model's optimiser.
    """

    def forward(self, out: Embeddings, batch: Any) -> Tensor:
        """The scalar loss of ``batch``."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int) -> None:
        """Redraw what is fixed within an epoch; by default nothing."""


class BPR(Term):
    """:func:`ccdgraph.losses.bpr` on :class:`~ccdgraph.sampling.Triplets`."""

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the batch and its negatives."""
        positive = out.pairs(batch.user, batch.positive)
        negative = out.pairs(batch.user.unsqueeze(-1), batch.negative)
        return losses.bpr(positive, negative)


class SoftBCE(Term):
    """:func:`ccdgraph.losses.soft_bce` on :class:`~ccdgraph.sampling.Pairs`."""

    def forward(self, out: Embeddings, batch: Pairs) -> Tensor:
        """Sum over the batch."""
        return losses.soft_bce(out.pairs(batch.user, batch.item), batch.label)


class MultinomialVAE(Term):
    """:func:`ccdgraph.losses.multinomial_vae` on users as :class:`~ccdgraph.sampling.Entities`.

    Args:
        graph: its pairs and weights are the rows to reconstruct.
        beta: weight of the KL term.
    """

    def __init__(self, graph: BipartiteGraph, *, beta: float = 0.2) -> None:
        super().__init__()
        self.graph, self.beta = graph, beta
        self.place = torch.arange(len(graph.user), device=graph.device)

    def forward(self, out: Embeddings, batch: Entities) -> Tensor:
        """Sum over the users of the batch."""
        if out.posterior is None:
            raise ValueError("'out' has no posterior; this term needs a variational backbone")
        scores = out.scores(batch.index)
        pairs = self.graph.user_items
        row, item = pairs.entries(batch.index)
        count = pairs.degree[batch.index]
        start = pairs.indptr[batch.index] - (count.cumsum(0) - count)
        target = torch.zeros_like(scores)
        place = start[row] + self.place[: len(row)]
        target[row, item] = self.graph.weight[place].to(target.dtype)
        mean, log_variance = (part[batch.index] for part in out.posterior)
        return losses.multinomial_vae(scores, target, mean, log_variance, self.beta)


@dataclass(frozen=True)
class Part:
    """A term, where its batches come from, and its weight.

    Args:
        term: the loss.
        batches: its own source; ``None`` reads the batch of the objective's first part.
        weight: a number, or a schedule over epochs.
    """

    term: Term
    batches: Batches | None
    weight: float | Callable[[int], float] = 1.0


@dataclass(frozen=True)
class Objective:
    """Terms that are summed into one optimiser step.

    The batches of the first part set the number of steps of an epoch; the others start over as
    often as needed. Several objectives are swept one after another in each epoch.
    """

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class FitConfig:
    """How long and how fast to train.

    Args:
        epochs: passes over every objective, at most.
        lr: Adam's learning rate.
        weight_decay: coupled L2 penalty inside Adam, as in the papers' code.
        patience: epochs without a better validation value before stopping; 0 never stops early.
        min_steps: steps of the first objective that ``epochs`` is raised to reach. A small block
            has few steps an epoch, while a fresh student needs as many as on a large one.
        record: on a CUDA device, record each epoch's step and replay it.
    """

    epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 1e-4
    patience: int = 0
    min_steps: int = 0
    record: bool = False


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
    validate: Callable[[Embeddings], float] | None = None,
    on_epoch: Callable[[int, int, float], None] | None = None,
) -> FitResult:
    """Train ``model`` in place; with ``validate`` the best epoch's weights are kept.

    Args:
        model: backbone to train.
        graph: graph it propagates over.
        objectives: swept in order in each epoch.
        config: epochs, learning rate, weight decay, patience.
        seed: parts of the seed of whatever the model draws (dropout, variational noise).
        validate: higher is better; called after every epoch with the embeddings.
        on_epoch: called after every epoch with (epochs done, epochs, mean loss of a step).

    Raises:
        FloatingPointError: the loss of an epoch is not finite.
    """
    terms = nn.ModuleList(part.term for objective in objectives for part in objective.parts)
    trainable = nn.ModuleList([model, terms])
    record = config.record and graph.device.type == "cuda"
    optimizer = torch.optim.Adam(
        trainable.parameters(),
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=True,
        capturable=record,
    )
    history, valid, best, best_state = [], [], -1, None
    epoch, epochs = 0, config.epochs
    while epoch < epochs:
        trainable.train()
        if isinstance(model, MultVAE):
            model.begin_epoch(rng(*seed, "noise", epoch, device=graph.device))
        with _seeded(*seed, "dropout", epoch, device=graph.device), own_stream(graph.device):
            loss, steps = _sweep(model, graph, objectives, optimizer, epoch, record=record)
        epochs = max(config.epochs, math.ceil(config.min_steps / max(steps, 1)))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of epoch {epoch} is {loss}; lower 'lr' ({config.lr}) or look for "
                "non-finite teacher scores"
            )
        history.append(loss)
        if validate is not None:
            valid.append(validate(embed(model, graph)))
            if best < 0 or valid[-1] > valid[best]:
                best, best_state = epoch, copy.deepcopy(model.state_dict())
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs, loss)
        if validate is not None and config.patience and epoch - best >= config.patience:
            break
        epoch += 1
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    return FitResult(tuple(history), tuple(valid), best if best >= 0 else len(history) - 1)


@torch.no_grad()
def embed(model: Backbone, graph: BipartiteGraph) -> Embeddings:
    """Embeddings of ``model`` in evaluation mode, without gradient; the mode is put back."""
    training = model.training
    out: Embeddings = model.eval()(graph)
    model.train(training)
    return out.detach()


@contextlib.contextmanager
def _seeded(*seed: int | str, device: torch.device) -> Iterator[None]:
    """Torch's global generators, which the dropout of a PyG module reads, seeded and put back."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(rng(*seed).initial_seed())
        yield


def _sweep(
    model: Backbone,
    graph: BipartiteGraph,
    objectives: Sequence[Objective],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    *,
    record: bool,
) -> tuple[float, int]:
    """Mean loss of a step of one epoch, and the steps of the first objective."""
    # Kept on the device: reading it would make the host wait in every step.
    total, steps = torch.zeros((), device=graph.device), []
    for objective in objectives:
        for part in objective.parts:
            part.term.begin_epoch(epoch)
        step = partial(_step, model, graph, objective, epoch, optimizer, total)
        run = Replayed(step) if record else step
        steps.append(0)
        for batches in _steps(objective, epoch, partial(embed, model, graph)):
            run(batches)
            steps[-1] += 1
    return float(total) / max(sum(steps), 1), steps[0]


def _step(
    model: Backbone,
    graph: BipartiteGraph,
    objective: Objective,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    total: Tensor,
    batches: Sequence[Any],
) -> None:
    """One step of the optimiser; its loss is added to ``total``."""
    out, addends = model(graph), []
    for part, batch in zip(objective.parts, batches, strict=True):
        weight = part.weight(epoch) if callable(part.weight) else part.weight
        addends.append(weight * part.term(out, batch))
    loss = torch.stack(addends).sum()
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
