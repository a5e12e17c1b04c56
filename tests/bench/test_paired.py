import numpy
import pandas
import pyarrow
import pytest
from scipy import stats

from ccdgraph.bench import compare, holm
from ccdgraph.bench.cell import Outcome, cell_folder
from ccdgraph.bench.paired import _h_of_means, lead_of_means, user_quantities, wilcoxon
from ccdgraph.bench.suite import Cell
from ccdgraph.run import RunConfig
from ccdgraph.run.folder import write_parquet


def test_holm_is_hand_arithmetic():
    """Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.5."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])


def test_holm_never_falls_below_a_smaller_p_nor_rises_above_one():
    """0.02 x 2 = 0.04, and the second keeps it although 0.03 x 1 is less."""
    assert holm([0.02, 0.03]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == [] and holm([0.2]) == [0.2]


def test_wilcoxon_is_that_of_scipy_without_zeros():
    difference = pandas.Series([0.0, 0.3, -0.1, 0.0, 0.25, 0.4, 0.05, -0.2, 0.6])
    expected = stats.wilcoxon(difference[difference != 0]).pvalue
    assert wilcoxon(difference) == pytest.approx(expected)
    # All of six differences on one side: 2 / 2 ** 6.
    assert wilcoxon(pandas.Series([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])) == pytest.approx(1 / 32)
    assert wilcoxon(pandas.Series([0.0, 0.0])) == 1.0


def finished(folder, strategy, seed, values, protocol="within") -> Outcome:
    """A cell of two blocks with recall by (learnt, tested, user)."""
    cell = Cell("d", "within", "strict", "MF", strategy, seed, RunConfig(seed=seed))
    object.__setattr__(cell.config, "strategy", strategy)  # a key of its own, and never run
    for learnt in (0, 1):
        rows = [(t, u, v) for (k, t, u), v in values.items() if k == learnt]
        tested, user, value = zip(*rows, strict=True)
        columns = {"scorer": ["served"] * len(rows), "tested": tested, "user": user}
        # Another scorer stands beside it and must not count.
        mine = pyarrow.table({**columns, "recall@5": value})
        other = pyarrow.table({**columns, "scorer": ["x"] * len(rows), "recall@5": value[::-1]})
        path = cell_folder(folder, cell) / "per_user" / f"after_{learnt}.parquet"
        write_parquet(path, pyarrow.concat_tables([mine, other]))
    about = {
        "metric": "recall@5",
        "served": "served",
        "protocol": protocol,
        "data": {"blocks": 2},
    }
    return Outcome(cell, "finished", "", about, (), {})


VALUES = {(0, 0, 7): 0.5, (0, 0, 8): 0.0, (1, 0, 7): 0.1, (1, 0, 8): 0.2, (1, 1, 7): 1.0}


def test_user_quantities_are_hand_arithmetic(tmp_path):
    """User 7: LA (0.5 + 1) / 2, RA (0.1 + 1) / 2; user 8: LA 0, RA 0.2."""
    found = user_quantities(finished(tmp_path, "A", 0, VALUES), tmp_path)
    means = found[["LA", "RA", "H"]]
    assert means.loc[7].tolist() == pytest.approx([0.75, 0.55, 2 * 0.75 * 0.55 / 1.3])
    assert means.loc[8].tolist() == pytest.approx([0.0, 0.2, 0.0])
    assert found["last 0"].tolist() == [0.1, 0.2] and found["new 1"].isna().tolist() == [
        False,
        True,
    ]
    after = finished(tmp_path, "B", 0, VALUES, protocol="next")
    assert list(user_quantities(after, tmp_path).columns) == ["LA", "new 0", "new 1"]


def test_comparisons_average_over_common_seeds_and_correct_over_baselines(tmp_path):
    generator = numpy.random.default_rng(0)
    users, outcomes = range(30), []
    for strategy, lead, seeds in (("ours", 0.3, (0, 1)), ("a", 0.0, (0, 1, 2)), ("b", 0.25, (1,))):
        for seed in seeds:
            values = {
                (k, t, u): float(generator.uniform(0, 0.3) + lead)
                for k, t in ((0, 0), (1, 0), (1, 1))
                for u in users
            }
            outcomes.append(finished(tmp_path, strategy, seed, values))
    found = compare(outcomes, tmp_path)
    assert [(c.baseline, c.quantity) for c in found] == [
        (name, quantity) for quantity in ("LA", "RA", "H", "H of means") for name in ("a", "b")
    ]
    assert [c.seeds for c in found[:2]] == [2, 1] and found[0].users == 30
    frames = {(o.cell.strategy, o.cell.seed): user_quantities(o, tmp_path)["LA"] for o in outcomes}
    by_hand = (frames["ours", 0] + frames["ours", 1]) / 2 - (frames["a", 0] + frames["a", 1]) / 2
    assert found[0].difference == pytest.approx(by_hand.mean())
    assert found[0].p == pytest.approx(stats.wilcoxon(by_hand).pvalue)
    assert [c.corrected for c in found[:2]] == pytest.approx(holm([c.p for c in found[:2]]))
    assert compare(outcomes, tmp_path, "b")[0].reference == "b"


def drawn(generator, users=40, shared=None) -> pandas.DataFrame:
    """Values of users on two blocks, correlated by ``shared``; not all are tested everywhere."""
    names = ["new 0", "new 1", "last 0", "last 1"]
    values = 0.5 + 0.1 * generator.standard_normal((users, 4))
    frame = pandas.DataFrame(values if shared is None else values + shared, columns=names)
    frame.iloc[:10, 1] = frame.iloc[:10, 3] = numpy.nan
    return frame


def h(frame: pandas.DataFrame, weight: numpy.ndarray) -> float:
    """The H of a table in which a user counts ``weight`` times."""
    mean = {
        name: numpy.average(frame[name].dropna(), weights=weight[frame[name].notna()])
        for name in frame
    }
    la, ra = (mean["new 0"] + mean["new 1"]) / 2, (mean["last 0"] + mean["last 1"]) / 2
    return float(2 * la * ra / (la + ra))


def test_what_a_user_moves_is_the_derivative_by_the_users_weight():
    frame, step = drawn(numpy.random.default_rng(1)), 1e-6
    value, moved = _h_of_means(frame)
    assert value == pytest.approx(h(frame, numpy.ones(40)))
    for user in (0, 9, 10, 39):
        weight = numpy.eye(40)[user] * step
        slope = (h(frame, 1 + weight) - h(frame, 1 - weight)) / (2 * step)
        assert moved[user] == pytest.approx(slope, rel=1e-5, abs=1e-12)


def test_the_lead_of_means_is_as_sure_as_it_says():
    """Equally good, 5 in 100 seem to differ. Mutation: users of both not taken as pairs (0)."""
    generator, false = numpy.random.default_rng(0), 0
    for _ in range(400):
        shared = 0.3 * generator.standard_normal((40, 1))
        own, other = drawn(generator, shared=shared), drawn(generator, shared=shared)
        lead, p = lead_of_means(own, other)
        false += p < 0.05
        assert lead == pytest.approx(h(own, numpy.ones(40)) - h(other, numpy.ones(40)))
        assert lead_of_means(other, own) == pytest.approx((-lead, p))
    assert 10 <= false <= 34  # 20 +- 3.2 standard deviations
    assert lead_of_means(own, own) == (0.0, 1.0)
    assert lead_of_means(0 * own, 0 * own) == (0.0, 1.0)
