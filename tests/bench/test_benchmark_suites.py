from pathlib import Path

import pytest

from ccdgraph.bench.suite import cells, load_suite

CONFIGS = Path(__file__).parents[2] / "benchmarks" / "configs"
SUITES = sorted(
    {p for name in ("*_suite", "*_tuned", "planted") for p in CONFIGS.glob(f"{name}.toml")}
)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_suites_of_the_benchmarks_stand_for_cells(path):
    found = cells(load_suite(path))
    assert len({cell.key for cell in found}) == len(found) > 2
    bases = {cell.config.ccd.base for cell in found if cell.config.ccd is not None}
    assert len(bases) <= 1, "base teachers are shared between all cells of a seed"


def test_there_are_suites():
    assert {path.stem for path in SUITES} >= {
        *("yelp_suite", "strategies_suite", "movielens_suite"),
        *("planted", "planted_tuned", "strategies_mf_tuned"),
    }
