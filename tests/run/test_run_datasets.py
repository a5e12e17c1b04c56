"""Published data sets as the source of a run and on the command line."""

import pytest
from typer.testing import CliRunner

from ccdgraph.cli import app
from ccdgraph.config import ConfigError, from_dict, load
from ccdgraph.data import fingerprint, read_dataset, read_stream, split_stream
from ccdgraph.run import DataConfig, RunConfig, open_stream

ROWS = "".join(
    f"{1433221332117 + 1000 * k},{k % 20},{kind},{k % 13},\n"
    for k in range(400)
    for kind in ("view", "transaction")[: 1 + k % 2]
)


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("timestamp,visitorid,event,itemid,transactionid\n" + ROWS)
    return path


def test_a_run_reads_a_published_data_set(events, tmp_path):
    (tmp_path / "x.toml").write_text(
        '[data]\nsource = "retailrocket"\npath = "' + str(events) + '"\n'
        'events = ["view"]\nduplicates = "first"\nk_core = 2\nnum_blocks = 2\n'
    )
    stream = open_stream(load(RunConfig, tmp_path / "x.toml").data)
    read = read_dataset("retailrocket", events, events=["view"], duplicates="first", k_core=2)
    assert fingerprint(stream) == fingerprint(split_stream(read, num_blocks=2))
    everything = open_stream(DataConfig("retailrocket", str(events), num_blocks=2))
    assert fingerprint(everything) != fingerprint(stream)
    assert (len(stream), stream.name) == (3, "retailrocket")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"source": "yelp"}, "source 'yelp' needs a 'path'"),
        ({"source": "yelp", "path": "x", "user": "u"}, "'user' has no effect on source 'yelp'"),
        ({"source": "events", "path": "x", "events": ["view"]}, "'events' has no effect on source"),
        ({"source": "movielens"}, "'source' is 'movielens', expected one of .*'movielens-100k'"),
    ],
)
def test_options_that_a_data_set_does_not_read_are_refused(table, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        from_dict(DataConfig, table)


def test_the_command_line_converts_a_published_data_set(events, tmp_path):
    def invoke(*words):
        return CliRunner().invoke(app, ["data", *map(str, words)])

    options = ["--set", "source=retailrocket", "--set", "num_blocks=3"]
    shown = invoke("describe", events, *options)
    assert "retailrocket" in shown.stdout and "2015-06-02" in shown.stdout
    assert "wrote 4 blocks" in invoke("convert", events, tmp_path / "native", *options).stdout
    found = fingerprint(read_stream(tmp_path / "native"))
    assert f"fingerprint {found}" in shown.stdout
    kinds = [*options, "--set", 'events=["transaction"]']
    assert invoke("describe", events, *kinds).exit_code == 0
    events.write_text(events.read_text().replace("view", "look", 1))
    refused = invoke("describe", events, *options)
    assert refused.exit_code == 2
    assert "row 1: the value is 'look'; it must be one of view" in refused.stderr
    missing = invoke("describe", tmp_path / "nowhere.zip", *options)
    assert missing.exit_code == 2 and "get it from https://www.kaggle.com" in missing.stderr
