"""Terms of a loss, and the objectives that they sum up to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ccdgraph import losses
from ccdgraph.data.graph import BipartiteGraph
from ccdgraph.data.subgraph import Subgraph, neighbourhood
from ccdgraph.nn.backbone import Backbone, Embeddings
from ccdgraph.nn.multvae import MultVAE
from ccdgraph.sampling import Batches, Entities, EntityBatches, Pairs, Triplets


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

    def fixed(self, epoch: int) -> Hashable:
        """What :meth:`forward` takes from Python: a recorded step is used while this stays.

        By default the epoch where :meth:`begin_epoch` does something. A term that changes its
        tensors in place there can stay the same; the first batch after a change is not recorded.
        """
        return None if type(self).begin_epoch is Term.begin_epoch else epoch

    def draws(self) -> tuple[torch.Generator, ...]:
        """Generators of its own that :meth:`forward` draws from, which a recorder has to know."""
        return ()

    def reads(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Ids of the users and items whose embeddings :meth:`forward` reads, repeated or not.

        A sampled subgraph is drawn around them. ``forward`` then has to look embeddings up by id
        (``out.pairs``, ``out.user_rows``, ``out.item_rows``).

        Raises:
            ValueError: by default, as a term may read all of them.
        """
        raise ValueError(
            f"{type(self).__name__} reads the embeddings of the whole graph; set 'fanout' to none"
        )


class BPR(Term):
    """:func:`ccdgraph.losses.bpr` on :class:`~ccdgraph.sampling.Triplets`."""

    loss = staticmethod(losses.bpr)

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the batch and its negatives."""
        positive = out.pairs(batch.user, batch.positive)
        negative = out.pairs(batch.user.unsqueeze(-1), batch.negative)
        return self.loss(positive, negative)

    def reads(self, batch: Triplets) -> tuple[Tensor, Tensor]:
        """Users, positives and negatives."""
        return batch.user, torch.cat([batch.positive, batch.negative.flatten()])


class Hinge(BPR):
    """:func:`ccdgraph.losses.hinge` on :class:`~ccdgraph.sampling.Triplets`."""

    loss = staticmethod(losses.hinge)


class SampledSoftmax(BPR):
    """:func:`ccdgraph.losses.sampled_softmax` of cosines on :class:`~ccdgraph.sampling.Triplets`.

    The negatives of a batch serve all its rows, so one a row gives as many as the batch has rows.
    One that is the row's positive is left out; others that its user has may be among them.

    Args:
        temperature: what cosines are divided by.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"'temperature' is {temperature}, expected a number above 0")
        self.temperature = temperature

    def forward(self, out: Embeddings, batch: Triplets) -> Tensor:
        """Sum over the batch."""
        negative = batch.negative.flatten()
        user = normalize(out.user_rows(batch.user)) / self.temperature
        ours, theirs = (normalize(out.item_rows(item)) for item in (batch.positive, negative))
        same = batch.positive.unsqueeze(1) == negative
        return losses.sampled_softmax(
            (user * ours).sum(1), (user @ theirs.T).masked_fill(same, -torch.inf)
        )


def ranking(model: Backbone) -> Term:
    """The loss that a backbone learns triplets by."""
    if model.loss == "softmax":
        return SampledSoftmax(model.temperature)
    return Hinge() if model.loss == "hinge" else BPR()


class SoftBCE(Term):
    """:func:`ccdgraph.losses.soft_bce` on :class:`~ccdgraph.sampling.Pairs`."""

    def forward(self, out: Embeddings, batch: Pairs) -> Tensor:
        """Sum over the batch."""
        return losses.soft_bce(out.pairs(batch.user, batch.item), batch.label)

    def reads(self, batch: Pairs) -> tuple[Tensor, Tensor]:
        """Users and items."""
        return batch.user, batch.item


class MultinomialVAE(Term):
    """:func:`ccdgraph.losses.multinomial_vae` on rows as :class:`~ccdgraph.sampling.Entities`.

    Args:
        graph: its pairs and weights are the rows to reconstruct.
        beta: weight of the KL term.
        rows: whose rows a batch holds, ``"user"`` or ``"item"``.
    """

    def __init__(
        self,
        graph: BipartiteGraph,
        *,
        beta: float = 0.2,
        rows: Literal["user", "item"] = "user",
    ) -> None:
        super().__init__()
        self.graph, self.beta, self.rows = graph if rows == "user" else graph.flipped, beta, rows
        self.place = torch.arange(len(graph.user), device=graph.device)

    def forward(self, out: Embeddings, batch: Entities) -> Tensor:
        """Sum over the rows of the batch."""
        if out.posterior is None:
            raise ValueError("'out' has no posterior; this term needs a variational backbone")
        ours, theirs = (out.user, out.item) if self.rows == "user" else (out.item, out.user)
        scores = ours[batch.index] @ theirs.T
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


def reconstruction(
    model: MultVAE, target: BipartiteGraph, *, batch_size: int, generator: torch.Generator
) -> Part:
    """How a variational model learns: those rows of ``target`` that have any entry.

    Args:
        model: tells whose rows it encodes.
        target: the rows to reconstruct.
        batch_size: rows of a step.
        generator: source of their order, on the device of ``target``.
    """
    index = torch.unique(target.user if model.rows == "user" else target.item)
    batches = EntityBatches(index, batch_size=batch_size, generator=generator)
    return Part(MultinomialVAE(target, rows=model.rows), batches)


@dataclass(frozen=True)
class Objective:
    """Terms that are summed into one optimiser step.

    The batches of the first part set the number of steps of an epoch; the others start over as
    often as needed. Several objectives are swept one after another in each epoch.
    """

    parts: tuple[Part, ...]


class Views:
    """The graph that a step propagates over: the whole, or what lies around its batches.

    Args:
        graph: the whole graph.
        fanout: neighbours drawn in each round; ``None`` for the whole graph.
        depth: rounds of message passing of the backbone, where it says so.
        generator: source of the draws, on the device of ``graph``.

    Raises:
        ValueError: fewer draws than rounds, or a number of neighbours that is none.
    """

    def __init__(
        self,
        graph: BipartiteGraph,
        fanout: Sequence[int] | None,
        depth: int | None,
        generator: torch.Generator,
    ) -> None:
        if fanout is not None and (depth or 0) > len(fanout):
            raise ValueError(
                f"'fanout' is {tuple(fanout)}, but the backbone passes messages {depth} times; "
                "give one number for each time"
            )
        if any(most == 0 or most < -1 for most in fanout or ()):
            raise ValueError(f"'fanout' is {fanout}; each number is at least 1, or -1 for all")
        self.graph, self.fanout, self.generator = graph, fanout, generator

    def __call__(self, terms: Sequence[Term], batches: Sequence[Any]) -> BipartiteGraph | Subgraph:
        """What ``terms`` need to read ``batches``, one of each."""
        if self.fanout is None:
            return self.graph
        pairs = zip(terms, batches, strict=True)
        read = [term.reads(batch) for term, batch in pairs]
        user, item = (torch.cat(ids) for ids in zip(*read, strict=True))
        return neighbourhood(self.graph, user, item, self.fanout, generator=self.generator)
