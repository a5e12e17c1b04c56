from dataclasses import replace

import pytest
import torch

from ccdgraph import checkpoint
from ccdgraph.config import ConfigError, from_dict, load, to_dict
from ccdgraph.data import Stream, fingerprint, write_stream
from ccdgraph.run import (
    DataConfig,
    EvaluateConfig,
    RunConfig,
    detect_source,
    open_stream,
    recommend,
    run,
)


def test_recommendations_are_external_ids_and_new_to_the_user(config, straight):
    stream = open_stream(config.data)
    user = stream.users[3]
    listed = recommend(straight, user, 10)
    scores = [score for _, score in listed]
    assert len(listed) == 10 and scores == sorted(scores, reverse=True)
    parts = [part for block in stream for part in (block.train, block.valid, block.test)]
    had = {stream.items[int(i)] for part in parts for i in part.item[part.user == 3]}
    assert had and not had & {item for item, _ in listed}
    assert {item for item, _ in listed} <= set(stream.items.tolist())
    tensors, _ = checkpoint.load(straight / "served")
    by_hand = tensors["item"] @ tensors["user"][3]
    for item, score in listed:
        assert score == pytest.approx(float(by_hand[stream.items.index(item)]), abs=1e-6)
    everything = recommend(straight, user, stream[2].num_items)
    assert {item for item, _ in everything} == set(stream.items.tolist()) - had


def test_recommending_refuses_what_it_cannot_serve(straight, tmp_path):
    with pytest.raises(ValueError, match="serves nothing"):
        recommend(tmp_path, "c0u0001")
    with pytest.raises(ValueError, match=r"'nobody' is not among the .* known ids"):
        recommend(straight, "nobody")
    with pytest.raises(ValueError, match=r"'k' is 1000, expected 1 to \d+, the size of the cata"):
        recommend(
            straight, open_stream(load(RunConfig, straight / "config.toml").data).users[0], 1000
        )


def cut(stream: Stream, index: int, part: str) -> Stream:
    """``stream`` with an empty ``part`` in one block."""
    block = stream[index]
    empty = block.train[torch.zeros(0, dtype=torch.int64)]
    blocks = list(stream.blocks)
    blocks[index] = replace(block, **{part: empty})
    return replace(stream, blocks=tuple(blocks))


def test_streams_that_cannot_be_run_leave_no_folder(config, tmp_path):
    stream = open_stream(config.data)
    long = replace(config, evaluate=replace(config.evaluate, ks=(5, 1000)))
    alone = replace(config, ccd=replace(config.ccd, teachers=()))
    for settings, data, reason in (
        (config, cut(stream, 1, "train"), "block 1 of 'synthetic' has no training rows"),
        (config, cut(stream, 2, "test"), "block 2 of 'synthetic' has no test rows to evaluate"),
        (long, stream, r"'evaluate\.ks' asks for 1000 items, but the base block .* has \d+"),
        (alone, stream, r"'ccd\.teachers' is empty"),
    ):
        with pytest.raises(ValueError, match=reason):
            run(settings, tmp_path / "run", stream=data)
    assert not (tmp_path / "run").exists()


def test_a_stream_without_validation_runs(config, tmp_path):
    stream = open_stream(config.data)
    for index in range(3):
        stream = cut(stream, index, "valid")
    result = run(config, tmp_path / "run", stream=stream)
    assert {row.split for row in result.rows} == {"test"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"ccd": {"studnet": {}}}, "unknown key 'ccd.studnet'; did you mean 'student'"),
        ({"evaluate": {"ks": []}}, "'ks' is"),
        ({"evaluate": {"ks": [0]}}, "at least 1"),
        ({"evaluate": {"scorers": []}}, "'scorers' is empty"),
        (
            {"evaluate": {"scorers": ["techer"]}},
            "'evaluate.scorers.0' is 'techer', expected one of",
        ),
        ({"evaluate": {"mask": "block"}, "ccd": {"mask": "strict"}}, None),
        ({"evaluate": {"mask": "strict"}, "ccd": {"mask": "block"}}, "set one of them"),
        ({"data": {"source": "events"}}, "needs a 'path'"),
        ({"data": {"path": "x"}}, "'path' has no effect on source 'synthetic'"),
        ({"data": {"source": "presplit", "path": "x", "k_core": 5}}, "'k_core' has no effect"),
        ({"data": {"max_blocks": -1}}, "must be at least 0"),
    ],
)
def test_configurations_that_contradict_themselves_are_refused(table, message):
    if message is None:
        assert from_dict(RunConfig, table).mask == "block"
        return
    with pytest.raises(ConfigError, match=message):
        from_dict(RunConfig, table)


def test_configurations_survive_their_dictionary(config):
    assert from_dict(RunConfig, to_dict(config)) == config
    assert config.evaluate.headline == "recall@5"
    assert EvaluateConfig(ks=(20,)).headline == "recall@20"


def test_sources_are_told_apart(config, tmp_path):
    stream = open_stream(config.data)
    native = write_stream(stream, tmp_path / "native")
    assert detect_source(native) == "stream"
    again = open_stream(DataConfig(source="stream", path=str(native)))
    assert fingerprint(again) == fingerprint(stream)
    (tmp_path / "block_0.csv").write_text("user,item,split\n0,0,train\n0,1,test\n")
    assert detect_source(tmp_path) == "presplit"
    assert len(open_stream(DataConfig(source="presplit", path=str(tmp_path)))) == 1
    rows = "".join(f"{u},{i},{10 * i}\n" for u in range(4) for i in range(6))
    (tmp_path / "rows.csv").write_text("uid,iid,time\n" + rows)
    assert detect_source(tmp_path / "rows.csv") == "events"
    events = DataConfig(
        source="events", path=str(tmp_path / "rows.csv"), user="uid", num_blocks=1, k_core=2
    )
    assert len(open_stream(events)) == 2


def test_a_device_that_is_not_there_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'device' is 'cuda', but torch finds none"):
        run(replace(config, device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
