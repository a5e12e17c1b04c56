"""What `citeulike.py` measures: data, models, methods, settings and published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parts.citeulike_trials import COMBINATIONS, DIRECTLY, HETCOMP, PHR, SCHEDULES, settings

ALL = (
    *("none", "rrd", "ir", "sampled-rrd", "ir-rrd", "de", "de-rrd", "phr", "ftd", "htd"),
    *("rd", "cd", "concf", "hetcomp"),
)
UNTAUGHT = "-"
"""The teacher of a row that has none."""
SEARCH = 100
"""The seed that settings are chosen with; none that is reported."""
COST = {
    **{"concf": 10, "ir-rrd": 4, "phr": 2, "de-rrd": 2, "htd": 2, "hetcomp": 2},
    **{"de": 1, "rrd": 1, "sampled-rrd": 1},
}
"""Of an epoch, roughly: long cells start first."""


def learner(backbone: str, dim: int, **fit: Any) -> dict[str, Any]:
    """A model and its training, as a table of the configuration."""
    return {"model": {"backbone": backbone, "dim": dim}, "fit": fit}


BPR = {"lr": 1e-3, "weight_decay": 1e-3}
LONG = {"epochs": 1000, "patience": 20, **BPR}
MIXED = {"epochs": 100, "patience": 20, "lr": 5e-3, "weight_decay": 1e-4}
TEAM = [learner(name, 64, **MIXED) for name in ("MF", "CML", "LightGCN", "MultVAE")]
SIX = [*TEAM, *(learner(name, 64, **MIXED) for name in ("NeuMF", "ItemMultVAE"))]
SHORT = {"epochs": 31, "lr": 5e-3, "weight_decay": 1e-4}
FAST = {"epochs": 251, "patience": 100, "lr": 5e-3, "weight_decay": 1e-5}


@dataclass(frozen=True)
class Protocol:
    """One way to measure, its teachers, and the methods measured in it.

    Args:
        folder: of the data.
        metric: split and metric of the table.
        config: what all cells share.
        student: the student.
        teachers: by name; each is a list of models.
        methods: by the label of a row.
        known: published values by row, for comparison.
        source: where those stand.
        agreed: rows by the label of the row whose heads they are the consensus of.
        search: changes to the cells of a row that are tried with a seed of their own; those with
            the best validation value of ``metric`` are made in its cells.
        tried: what the trials have otherwise than the cells of their row, to be short.
    """

    folder: str
    metric: tuple[str, str]
    config: Mapping[str, Any]
    student: Mapping[str, Mapping[str, Any]]
    teachers: Mapping[str, list[dict[str, Any]]]
    methods: Mapping[str, Mapping[str, Any]]
    known: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    agreed: Mapping[str, str] = field(default_factory=dict)
    search: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    tried: Mapping[str, Any] = field(default_factory=dict)


PROTOCOLS = {
    "loo": Protocol(
        "citeulike_loo",
        ("test", "hit@5"),
        {
            "measure": {
                **{"protocol": "sampled", "ks": [5, 10, 20], "select": "hit@5"},
                "patience_on": ["hit@10", "hit@20"],
            }
        },
        {"MF": learner("MF", 20, **LONG)},
        {"MF 200": [learner("MF", 200, **LONG)]},
        {
            **{m: {"distill": [m]} for m in ("none", "de", "sampled-rrd", "ir-rrd", "phr")},
            "phr, tuned": {"distill": ["phr"]},
        },
        {
            **{"none": 0.4486, "de": 0.4773, "sampled-rrd": 0.4698, "ir-rrd": 0.4947},
            **{"phr": 0.4878, "phr, tuned": 0.4878},
        },
        "the authors' logs, one seed; PHR: hyperkdma, five seeds",
        search={"phr, tuned": PHR},
        tried={"student": {"fit": {"epochs": 161}}},
    ),
    "td": Protocol(
        "citeulike_td_loo",
        ("test", "recall@50"),
        {"measure": {"ks": [10, 20, 50], "select": "last", "hide": "others"}},
        {"MF": learner("MF", 20, epochs=101, **BPR)},
        {"MF 200": [learner("MF", 200, epochs=101, **BPR)]},
        {m: {"distill": [m]} for m in ("none", "ftd", "htd")},
        {"none": 0.2276, "ftd": 0.2516, "htd": 0.2744},
        "the authors' logs at epoch 100, one seed",
    ),
    "concf": Protocol(
        "citeulike_concf_split",
        ("valid", "recall@50"),
        {"measure": {"ks": [20, 50], "select": "last", "hide": "others"}, "base_weight": 0.0},
        {"MF": learner("MF", 64, epochs=191, lr=0.01, weight_decay=1e-5)},
        {},
        {
            "plain MF": {"base_weight": 1.0},
            "single head": {"distill": ["concf"], "methods": {"concf": {"alone": True}}},
            "without consensus": {"distill": ["concf"], "methods": {"concf": {"consensus": 0.0}}},
            "concf": {"distill": ["concf"]},
        },
        {
            **{"single head": 0.268, "without consensus": 0.307},
            **{"concf": 0.368, "concf, all heads": 0.385},
        },
        "the authors' figures at epoch 190, one seed, read off to .002",
        {"without consensus, all heads": "without consensus", "concf, all heads": "concf"},
    ),
    "hetcomp": Protocol(
        "citeulike_hetcomp_split",
        ("test", "recall@50"),
        {
            "measure": {"ks": [20, 50], "select": "recall@50", "hide": "others", "every": 10},
            "base_weight": 0.0,
        },
        {"MF": learner("MF", 6, epochs=401, patience=100, lr=1e-3, weight_decay=1e-5)},
        {"six": SIX},
        {
            "none": {"base_weight": 1.0},
            "ensemble directly": {"distill": ["rrd"], **settings("rrd", k=100)},
            "consensus directly": {"distill": ["rrd"], **settings("rrd", k=100, consensus=10.0)},
            "hetcomp": {"distill": ["hetcomp"]},
            "hetcomp at once": {"distill": ["hetcomp"], **settings("hetcomp", curriculum=False)},
            "directly, tuned": {"distill": ["rrd"], "student": {"fit": FAST}},
            "hetcomp, tuned": {"distill": ["hetcomp"], "student": {"fit": FAST}},
        },
        search={"directly, tuned": DIRECTLY, "hetcomp, tuned": HETCOMP},
    ),
    "small": Protocol(
        "yelp_ccd",
        ("test", "recall@20"),
        {"measure": {"ks": [20, 50], "select": "recall@20", "every": 10}},
        {"LightGCN": learner("LightGCN", 8, **FAST | {"epochs": 201})},
        {"six": SIX},
        {
            "none": {"distill": []},
            "rrd": {"distill": ["rrd"]},
            "combined, tuned": {"distill": ["rrd"]},
        },
        search={"combined, tuned": COMBINATIONS},
    ),
    "speed": Protocol(
        "citeulike_loo",
        ("test", "recall@50"),
        {"measure": {"ks": [50], "select": "last"}},
        {"MF": learner("MF", 20, epochs=6, **BPR)},
        {"MF 200": [learner("MF", 200, epochs=3, **BPR)]},
        {method: {"distill": [method]} for method in ALL},
    ),
}
"""By name. ``small`` asks how much of six teachers a student of width 8 keeps; ``speed`` tells
seconds an epoch alone: six epochs, alone on the device."""


for _name, _folder in (("citeulike", "citeulike_hetcomp_split"), ("yelp", "yelp_ccd")):
    PROTOCOLS[f"table {_name}"] = Protocol(
        _folder,
        ("test", "recall@20"),
        {"measure": {"ks": [20, 50], "select": "recall@20", "every": 10}},
        {"MF": learner("MF", 20, **SHORT), "LightGCN": learner("LightGCN", 20, **SHORT)},
        {"MF 200": [learner("MF", 200, **MIXED)], "mixed": TEAM},
        {m: {"distill": [m], "methods": SCHEDULES.get(m, {})} for m in ALL},
    )


@dataclass(frozen=True)
class Cell:
    """One distillation.

    Args:
        protocol: with ``row``, ``student``, ``teacher`` and ``seed`` where it stands in the tables.
        config: of the distillation.
        needs: names of the cells that it waits for.
        change: of a trial, what the cells of its row take over if it is the best.
        trials: names of the trials that it takes its settings from.
    """

    protocol: str
    row: str
    student: str
    teacher: str
    seed: int
    config: dict[str, Any]
    needs: tuple[str, ...] = ()
    change: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its folder."""
        words = (self.protocol, self.row, self.student, self.teacher, str(self.seed))
        return "-".join(words).replace(" ", "_").replace(",", "")

    @property
    def place(self) -> tuple[Any, ...]:
        """Its place in the tables."""
        return (self.protocol, self.row, self.student, self.teacher, self.seed)


def merged(config: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the entries of ``change``, table by table."""
    return dict(config) | {
        key: merged(config.get(key, {}), value) if isinstance(value, Mapping) else value
        for key, value in change.items()
    }
