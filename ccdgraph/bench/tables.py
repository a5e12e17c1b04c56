"""The results of a suite as Markdown and as LaTeX: means and deviations over seeds, and tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ccdgraph.bench.cell import Outcome
from ccdgraph.bench.results import H_OF_MEANS, TESTS, Comparison, Place, places
from ccdgraph.run import RunResult

COLUMNS = ("LA", "RA", "H", "LA without D0", "RA without D0", "H without D0", "new users")
# Beside what is served: the ensemble, and the student that is distilled from it after a block and
# serves until the next.
SHOWN = ("teacher", "generated")
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True)
class Line:
    """A line of a table: a scorer of a strategy or why there is none, values by seed, failures."""

    strategy: str
    scorer: str
    values: dict[str, list[float]]
    failed: int


def measures(result: RunResult, scorer: str, protocol: str) -> dict[str, float]:
    """What a table shows of a run, after its last measured block; NaN where not measured.

    Under ``"next"`` nothing is retained: the rows of an earlier block are trained on by then.

    New users are those first known in the block that tests them, measured right after it.
    """
    last, matrix = result.learnt, result.matrix(scorer)
    found = {}
    for base, suffix in ((True, ""), (False, " without D0")):
        found[f"LA{suffix}"] = matrix.learning_average(last, base=base)
        retains = protocol == "within"
        found[f"RA{suffix}"] = matrix.retained_average(last, base=base) if retains else math.nan
        found[f"H{suffix}"] = matrix.h_mean(last, base=base) if retains else math.nan
    new = result.matrix(scorer, group="new_users")
    return {**found, "new users": new.learning_average(last, base=False)}


def lines(outcomes: Sequence[Outcome]) -> dict[Place, list[Line]]:
    """The lines of every table: what a strategy serves, and what else :data:`SHOWN` names."""
    return {
        place: [line for name, found in strategies.items() for line in _lines(name, found)]
        for place, strategies in places(outcomes).items()
    }


def _lines(strategy: str, outcomes: Sequence[Outcome]) -> list[Line]:
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if not finished:
        reason = "failed" if failed else "not run"
        return [Line(strategy, reason, {name: [] for name in COLUMNS}, failed)]
    results = [outcome.result for outcome in finished]
    served, protocol = (finished[0].about[key] for key in ("served", "protocol"))
    names = [name for name in (served, *SHOWN) if name in results[0].scorers]
    found = []
    for scorer in dict.fromkeys(names or results[0].scorers):
        measured = [measures(result, scorer, protocol) for result in results]
        values = {name: [entry[name] for entry in measured] for name in COLUMNS}
        found.append(Line(strategy, scorer, values, failed))
    return found


def markdown(
    name: str, outcomes: Sequence[Outcome], comparisons: Sequence[Comparison], metric: str
) -> str:
    """All tables of a suite, with what was measured and what failed."""
    parts = [f"# {name}\n"]
    for place, found in lines(outcomes).items():
        tests = [test for test in comparisons if test.place == place]
        seeds = max(len(line.values["LA"]) for line in found)
        parts.append(f"## {_title(place)}\n\n{_caption(metric, seeds)}\n")
        head = ["strategy", "scorer", *COLUMNS, "seeds", "failed"]
        parts.append(_markdown_table(head, [_cells(line, "±") for line in found]))
        if tests:
            parts.append(_tested(tests[0].reference))
            head = ["baseline", "quantity", "difference", "users", "seeds", "p", "p (Holm)"]
            parts.append(_markdown_table(head, [_test_cells(test) for test in tests]))
    wrong = [o for o in outcomes if o.status != "finished"]
    if wrong:
        listed = [f"- {o.cell.label}: {o.error or 'not run yet'}" for o in wrong]
        parts.append("\n".join(["## Cells without results\n", *listed, ""]))
    return "\n".join(parts)


def latex(outcomes: Sequence[Outcome], comparisons: Sequence[Comparison], metric: str) -> str:
    """One ``table`` for every data, protocol, mask and backbone; needs the package booktabs.

    The last column is the corrected p-value of H, or of LA where the protocol has no H, of what
    the strategy serves.
    """
    parts = []
    for place, found in lines(outcomes).items():
        quantity, shown = ("LA",) * 2 if place[1] == "next" else (H_OF_MEANS, "H")
        p = {
            t.baseline: t.corrected
            for t in comparisons
            if (t.place, t.quantity) == (place, quantity)
        }
        seeds = max(len(line.values["LA"]) for line in found)
        head = ["strategy", "scorer", *COLUMNS, f"$p$ ({shown})"]
        body = []
        for line in found:
            *names, _, _ = _cells(line, "$\\pm$")
            names[:2] = map(_escape, names[:2])
            # The first line of a strategy is the served one, and it alone was tested.
            body.append(" & ".join([*names, _shown_p(p.pop(line.strategy, None))]))
        parts += [
            r"\begin{table}",
            rf"\caption{{{_escape(_title(place))}. {_escape(_caption(metric, seeds))}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *(f"{row} \\\\" for row in body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    return "\n".join(parts)


def _title(place: Place) -> str:
    data, protocol, mask, backbone = place
    return f"{data}, protocol {protocol}, mask {mask}, backbone {backbone}"


def _caption(metric: str, seeds: int) -> str:
    return (
        f"{metric} after the last block, mean and standard deviation over up to {seeds} seeds; "
        "ties by id; new users right after the block that they came with."
    )


def _tested(reference: str) -> str:
    return f"\nAgainst {reference}: {TESTS}; the difference is the reference's lead.\n"


def _cells(line: Line, sign: str) -> list[str]:
    seeds = len(line.values["LA"])
    values = [_mean_sd(line.values[name], sign) for name in COLUMNS]
    return [line.strategy, line.scorer, *values, str(seeds), str(line.failed)]


def _test_cells(test: Comparison) -> list[str]:
    counts = [str(test.users), str(test.seeds)]
    tail = [_shown_p(test.p), _shown_p(test.corrected)]
    return [test.baseline, test.quantity, f"{test.difference:+.4f}", *counts, *tail]


def _mean_sd(values: Iterable[float], sign: str) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):.4f}"
    return mean if len(known) == 1 else f"{mean} {sign} {statistics.stdev(known):.4f}"


def _shown_p(p: float | None) -> str:
    return "-" if p is None else f"{p:.2g}"


def _markdown_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in body)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
