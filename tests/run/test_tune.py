from dataclasses import replace

import pytest
from typer.testing import CliRunner

from ccdgraph.cli import app
from ccdgraph.config import from_dict, to_toml
from ccdgraph.run.frontier import Found, frontier, predict
from ccdgraph.run.tune import TuneConfig, tune_teacher

pytest.importorskip("optuna", reason="needs the extra 'tune'")

FITS = {"base": {"fit": {"epochs": 4, "lr": 1e-2}}, "fit": {"epochs": 4, "lr": 1e-2}}
SEARCH = from_dict(
    TuneConfig,
    {
        "data": {
            "num_blocks": 2,
            "synthetic": {"num_users": 60, "num_items": 40, "num_interactions": 900},
        },
        "student": {"backbone": {"backbone": "MF", "dim": 3}, **FITS},
        "teacher": FITS,
        "space": {"dims": [4, 8], "num_layers": [1], "windows": [0.5, 1.0]},
        **{"trials": 5, "finalists": 2, "cheap": 0.5, "k": 5},
    },
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "run"
    return folder, tune_teacher(SEARCH, folder)


def test_finalists_come_best_first_with_their_costs(searched):
    _, found = searched
    assert len(found) == 2 and found[0].student >= found[1].student
    alone = {round(one.student - one.gain, 9) for one in found}
    assert len(alone) == 1  # all gains are over the same student
    assert all(
        one.seconds > 0 and one.parameters >= 4 * 90 and 0 < one.quality <= 1 for one in found
    )


def test_a_finished_search_tries_nothing_again(searched, monkeypatch):
    folder, found = searched
    monkeypatch.setattr("ccdgraph.run.tune._trial", None)
    assert tune_teacher(SEARCH, folder) == found


def test_a_search_that_was_stopped_goes_on(tmp_path, monkeypatch):
    from ccdgraph.run import tune

    real, calls = tune._trial, []

    def stops(trial, *arguments):
        calls.append(trial.number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(trial, *arguments)

    monkeypatch.setattr(tune, "_trial", stops)
    with pytest.raises(KeyboardInterrupt):
        tune_teacher(SEARCH, tmp_path / "run")
    assert len(tune_teacher(SEARCH, tmp_path / "run")) == 2
    assert len(calls) == 1 + SEARCH.trials + SEARCH.finalists  # one was tried again


def test_a_teacher_out_of_budget_is_not_a_finalist(tmp_path):
    assert tune_teacher(replace(SEARCH, budget=1e-6), tmp_path / "run") == []


def test_another_search_in_the_folder_is_refused(searched, tmp_path):
    folder, _ = searched
    with pytest.raises(ValueError, match="was begun with 'k' = 5, not 6"):
        tune_teacher(replace(SEARCH, k=6), folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        tune_teacher(SEARCH, tmp_path)


def test_the_frontier_drops_whoever_costs_more_for_nothing():
    one = Found("a", 1, 2.0, 0.5, 0.3, 0.1, 0.1)
    dearer = replace_all(one, seconds=3.0, student=0.3, quality=0.9)
    best = replace_all(one, seconds=4.0, student=0.4)
    cheap = replace_all(one, seconds=1.0, student=0.2)
    assert frontier([best, dearer, one, cheap]) == [cheap, one, best]


def replace_all(found: Found, **values) -> Found:
    return found._replace(**values)


def test_predictions_by_hand():
    assert predict([(0.0, 1.0), (2.0, 5.0), (4.0, 9.0)], 3.0) == pytest.approx(7.0)
    assert predict([(0.0, 1.0), (2.0, 5.0)], 3.0) == 3.0  # the mean
    assert predict([], 0.5) == 0.5


def test_the_command_prints_the_frontier(searched, tmp_path):
    folder, _ = searched
    path = tmp_path / "search.toml"
    path.write_text(to_toml(SEARCH))
    told = CliRunner().invoke(app, ["tune-teacher", str(path), "--to", str(folder)])
    assert told.exit_code == 0, told.output
    assert "no cheaper one is as good" in told.output and "*" in told.output


def test_settings_that_make_no_sense_are_refused():
    for table, message in (
        ({"cheap": 0.0}, "'cheap' 0.0"),
        ({"space": {"dims": []}}, "'dims' is empty"),
        ({"space": {"windows": [2.0]}}, "expected shares"),
    ):
        with pytest.raises(ValueError, match=message):
            from_dict(TuneConfig, table)
