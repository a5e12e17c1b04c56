"""The report of a static distillation: what teachers, student alone and student taught reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccdgraph.report.series import brief, flatten
from ccdgraph.report.tables import NONE, Table

KIND = "distillation"  # of run.json
_COSTS = ("parameters", "epochs", "best_epoch", "seconds_per_epoch")


def tables(about: Mapping[str, Any]) -> list[Table]:
    """Test metrics of every model, what each cost, and how near the student is to the teacher.

    Args:
        about: ``run.json`` of the distillation.
    """
    models, data = about["models"], about["data"]
    measured = {name: notes["metrics"]["test"] for name, notes in models.items()}
    names = list(dict.fromkeys(metric for found in measured.values() for metric in found))
    rows = [[model, *(_four(found.get(n)) for n in names)] for model, found in measured.items()]
    config = about["config"]
    rule = f"Test rows, protocol {config['measure']['protocol']}, seed {config['seed']}, means over"
    found = [
        Table(
            f"{rule} users; 'reference' is the student without a teacher.", ["model", *names], rows
        )
    ]
    trained = {name: notes for name, notes in models.items() if "loss" in notes}
    costs = [[name, *(_brief(notes.get(c)) for c in _COSTS)] for name, notes in trained.items()]
    heads = [name.replace("_", " ") for name in _COSTS]
    found.append(Table(f"Cost of training. {about['hardware']}.", ["model", *heads], costs))
    near = [[name, _four(value)] for name, value in about["agreement"].items()]
    if near:
        found.append(Table("Agreement of student and teacher.", ["measure", "value"], near))
    where = {f"version of {name}": str(value) for name, value in about["versions"].items()}
    where |= {"device": about["device"], "data": f"{data['name']}, {data['users']:,} users, "}
    where["data"] += f"{data['items']:,} items, fingerprint {data['fingerprint']}"
    settings = {key: value for key, value in flatten(config).items() if value != "not set"}
    for caption, pairs in (("Where the numbers come from.", where), ("Settings.", settings)):
        found.append(Table(caption, ["key", "value"], [[*pair] for pair in pairs.items()], 2))
    return found


def render(about: Mapping[str, Any], version: str) -> str:
    """The page as text."""
    import jinja2
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    taught = " + ".join(about["config"]["distill"]) or "no method"
    text: str = environment.get_template("page.distilled.j2").render(
        title=f"Distillation on {about['data']['name']}: {taught}",
        warnings=about["warnings"],
        tables=tables(about),
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        version=version,
    )
    return text


def _four(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def _brief(value: float | None) -> str:
    return NONE if value is None else brief(value)
