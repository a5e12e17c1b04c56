"""Distillation methods by name: their settings, and the part of an objective that each becomes."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_type_hints

from ccdgraph.config import ConfigError, from_dict
from ccdgraph.distill.cd import CD
from ccdgraph.distill.concf import ConCF
from ccdgraph.distill.de import DE
from ccdgraph.distill.hetcomp import HetComp
from ccdgraph.distill.ir import IRRRD
from ccdgraph.distill.knowledge import Knowledge
from ccdgraph.distill.lists import transposed
from ccdgraph.distill.phr import PHR
from ccdgraph.distill.rd import RD
from ccdgraph.distill.regression import Regression
from ccdgraph.distill.rrd import RRD
from ccdgraph.distill.teacher import TeacherLists
from ccdgraph.distill.topology import FTD, HTD
from ccdgraph.distill.trajectory import Trajectories, observed_lists
from ccdgraph.nn.backbone import Backbone
from ccdgraph.nn.config import BackboneConfig
from ccdgraph.nn.multvae import MultVAE
from ccdgraph.sampling import EntityBatches
from ccdgraph.train import Part, Term

Settings = Mapping[str, Mapping[str, Any]]

ALIASES = {"none": (), "de-rrd": ("de", "sampled-rrd")}
"""Names that stand for none or several of :data:`METHODS`."""


@dataclass(frozen=True)
class Method:
    """How a name becomes a term.

    Args:
        term: the class; its keyword arguments are settings of the method.
        weight: of the term where none is set.
        bind: the class with what the teacher gives, from the knowledge and the settings ``own``.
        own: further settings with their defaults; ``by_user`` asks for batches of users.
        side: ``"user"`` or ``"item"`` of a term that has batches of its own.
        tables: whether the term works on embeddings for batches of triplets.
        hidden: keyword arguments that ``bind`` fills.
    """

    term: type[Term]
    weight: float
    bind: Callable[[Knowledge, dict[str, Any]], Callable[..., Term]]
    own: Mapping[str, Any] = field(default_factory=dict)
    side: Literal["user", "item"] | None = None
    tables: bool = False
    hidden: tuple[str, ...] = ()

    @property
    def settings(self) -> type:
        """A dataclass of ``weight``, ``own`` and the keyword arguments of the class."""
        hints = get_type_hints(self.term.__init__)
        options = {
            name: parameter.default
            for name, parameter in inspect.signature(self.term).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in (*self.hidden, "generator")
        }
        known = {"weight": self.weight, **self.own}
        fields = [(name, type(value), field(default=value)) for name, value in known.items()]
        fields += [(name, hints[name], field(default=value)) for name, value in options.items()]
        return dataclasses.make_dataclass(self.term.__name__, fields, frozen=True)

    def part(self, name: str, known: Knowledge, settings: Mapping[str, Any]) -> Part:
        """The term on ``known`` with its weight."""
        options = vars(from_dict(self.settings, settings, name)).copy()
        weight = options.pop("weight")
        own = {key: options.pop(key) for key in self.own}
        by_user = own.pop("by_user", False)
        if "generator" in inspect.signature(self.term).parameters:
            options["generator"] = known.rng(f"rest {self.side}" if self.side else name)
        term = self.bind(known, own)(**options)
        side: Literal["user", "item"] | None = "user" if by_user else self.side
        if side is None:
            return Part(term, None, weight)
        index = known.entities(side)
        order = known.rng(f"order {side}")
        batches = EntityBatches(index, batch_size=known.batch_size, generator=order)
        return Part(term, batches, weight)


def _regression(term: type[Term]) -> Callable[..., Callable[..., Term]]:
    return lambda known, own: partial(term, known.embeddings(), known.dim)


def _user_lists(known: Knowledge, own: dict[str, Any]) -> Callable[..., Term]:
    return partial(RRD, known.items_of(own["k"], own["consensus"]), known.seen, side="user")


def _item_lists(known: Knowledge, own: dict[str, Any]) -> Callable[..., Term]:
    users = known.lists(own["k"]).users
    return partial(RRD, users, transposed(known.seen), side="item")


def _sampled_items(known: Knowledge, own: dict[str, Any]) -> Callable[..., Term]:
    items = known.items_of(own["depth"], own["consensus"])
    return partial(IRRRD, TeacherLists(items, items[:0]), known.seen, item_weight=0.0)


def _collaborative(known: Knowledge, own: dict[str, Any]) -> Callable[..., Term]:
    score, item = known.scored(own["depth"])
    return partial(CD, item, score, known.seen)


def _heterogeneous(known: Knowledge, own: dict[str, Any]) -> Callable[..., Term]:
    teacher = known.teacher("the order of observed items")
    observed = observed_lists(teacher, known.seen, k=min(own["observed"], known.seen.num_items))
    along = Trajectories.of_lists(known.trajectories().lists, own["temperature"])
    return partial(HetComp, along, observed, known.seen)


METHODS: Mapping[str, Method] = {
    "rrd": Method(
        RRD, 0.01, _user_lists, {"k": 40, "consensus": 0.0}, side="user", hidden=("side",)
    ),
    "ir": Method(RRD, 0.01, _item_lists, {"k": 40}, side="item", hidden=("side",)),
    "sampled-rrd": Method(
        IRRRD,
        1e-3,
        _sampled_items,
        {"depth": 500, "consensus": 0.0},
        hidden=("item_weight", "k_users", "queries"),
    ),
    "ir-rrd": Method(
        IRRRD,
        1e-3,
        lambda known, own: partial(IRRRD, known.lists(own["depth"]), known.seen),
        {"depth": 500},
    ),
    "de": Method(DE, 0.01, _regression(DE), tables=True),
    "regression": Method(Regression, 0.01, _regression(Regression), tables=True),
    "phr": Method(
        PHR,
        0.01,
        lambda known, own: partial(
            PHR, known.embeddings(), known.dim, seen=known.seen if own["enrich"] else None
        ),
        {"enrich": True},
        tables=True,
        hidden=("seen",),
    ),
    "ftd": Method(FTD, 1e-3, lambda known, own: partial(FTD, known.embeddings()), tables=True),
    "htd": Method(HTD, 1e-3, _regression(HTD), tables=True),
    "rd": Method(
        RD,
        0.1,
        lambda known, own: partial(RD, known.items_of(own["depth"]), known.seen),
        {"depth": 10},
    ),
    "cd": Method(CD, 0.01, _collaborative, {"depth": 500}),
    "concf": Method(
        ConCF,
        1.0,
        lambda known, own: partial(ConCF, known.seen, known.dim, weight=own["consensus"]),
        {"consensus": 0.005},
        tables=True,
        hidden=("weight",),
    ),
    "hetcomp": Method(
        HetComp, 0.01, _heterogeneous, {"observed": 10, "temperature": 10.0, "by_user": False}
    ),
}
"""Methods by name. ``rrd`` and ``ir`` take lists whole, in batches of users or items of their own;
``sampled-rrd`` and ``ir-rrd`` sample them as published, for the users of a batch of triplets.
``consensus`` is the temperature of the weights by which teachers agree on lists, 0 for those of
their ensemble; ``temperature`` is that of HetComp's, ``observed`` how many training items it ranks.
"""


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """``names`` with :data:`ALIASES` written out.

    Raises:
        ConfigError: a method is not known, or named twice.

    >>> expand(["de-rrd", "ir"])
    ('de', 'sampled-rrd', 'ir')
    """
    known = {**{name: (name,) for name in METHODS}, **ALIASES}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{close[0]}'?" if close else f"expected {', '.join(known)}"
            raise ConfigError(f"there is no distillation method '{name}'; {meant}")
    found = tuple(method for name in names for method in known[name])
    if len(set(found)) < len(found):
        raise ConfigError(f"'distill' names a method twice: {', '.join(found)}; name each once")
    return found


def check_methods(names: Sequence[str], settings: Settings) -> None:
    """Refuse unknown names, and settings that do not fit or belong to a method that is not used.

    Raises:
        ConfigError: the first of them.
    """
    used = expand(names)
    for name, options in settings.items():
        if name not in used:
            raise ConfigError(f"'methods.{name}' has no effect; 'distill' does not name it")
        from_dict(METHODS[name].settings, options, f"methods.{name}")


def check_student(names: Sequence[str], student: BackboneConfig) -> None:
    """Refuse methods that cannot teach a backbone.

    Raises:
        ConfigError: the first of them, and what can.
    """
    kind = student.kind()
    rows = kind.rows if issubclass(kind, MultVAE) else None
    inner = kind.inner if issubclass(kind, Backbone) else True

    def refused(method: Method) -> str:
        if method.tables and rows:
            return f"reads batches of triplets, while {kind.__name__} learns whole {rows} rows"
        if method.tables and not inner:
            return f"works on inner products, while {kind.__name__} scores pairs by a network"
        by_item = not method.side and rows == "item"
        return f"reads users, while the batches of {kind.__name__} hold items" if by_item else ""

    for name in expand(names):
        if why := refused(METHODS[name]):
            able = [other for other, method in METHODS.items() if not refused(method)]
            raise ConfigError(f"'{name}' {why}; use another student or {', '.join(able)}")


def build_parts(names: Sequence[str], known: Knowledge, settings: Settings) -> list[Part]:
    """The parts of an objective that the named methods are.

    Args:
        names: as in :data:`METHODS` or :data:`ALIASES`.
        known: what the teachers hand over.
        settings: by name; ``weight``, a method's own and the keyword arguments of its class.
    """
    return [METHODS[name].part(name, known, settings.get(name, {})) for name in expand(names)]
