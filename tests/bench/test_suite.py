import copy
from dataclasses import replace

import pytest
from small_suite import table

from ccdgraph.bench import SuiteConfig, cells, load_suite
from ccdgraph.config import ConfigError, from_dict, to_dict
from ccdgraph.nn import BackboneConfig


@pytest.fixture
def suite() -> SuiteConfig:
    return from_dict(SuiteConfig, table())


def changed(**entries) -> dict:
    return {**copy.deepcopy(table()), **entries}


def test_cells_are_the_product_of_all_that_is_named():
    suite = from_dict(
        SuiteConfig,
        changed(
            protocols=["within", "next"],
            masks=["block", "strict"],
            backbones={"MF": {"backbone": "MF", "dim": 2}, "LightGCN": {"dim": 2}},
        ),
    )
    found = cells(suite)
    assert len(found) == 2 * 2 * 2 * 2 * 2 == len({cell.key for cell in found})
    first = found[0]
    assert first.label == "planted within block MF CCD seed 0"
    assert (first.config.data.protocol, first.config.mask) == ("within", "block")
    assert first.config.ccd.student == BackboneConfig("MF", dim=2)
    assert first.config.evaluate.per_user and first.config.evaluate.ks == (5,)


def test_variants_are_laid_over_the_settings(suite):
    by_name = {cell.strategy: cell.config.ccd for cell in cells(suite)}
    assert list(by_name) == ["CCD", "CCD/no proxies"]
    assert by_name["CCD/no proxies"] == replace(by_name["CCD"], keep_stability=(0.5,))


def test_shared_settings_lie_under_those_of_every_strategy_that_has_them():
    strategies = {
        "FineTune": {"settings": {"base": {"negatives": 3}}, "variants": {"lazy": {"decay": 0.5}}},
        "FIRE": {},
        **table()["strategies"],
    }
    shared = {"decay": 0.25, "base": {"batch_size": 17, "negatives": 2}, "batch_size": 19}
    entries = {"strategies": strategies, "shared": shared, "scorers": "none", "seeds": [0]}
    found = {
        cell.strategy: cell.config for cell in cells(from_dict(SuiteConfig, changed(**entries)))
    }
    base = found["FineTune"].settings["base"]
    assert (base["batch_size"], base["negatives"]) == (17, 3)
    assert found["FineTune"].settings["batch_size"] == 19
    decays = {name: found[name].settings.get("decay") for name in ("FineTune", "FineTune/lazy")}
    assert decays == {"FineTune": 0.25, "FineTune/lazy": 0.5}
    assert not {"base", "batch_size"} & set(found["FIRE"].settings)
    ccd = found["CCD"].ccd
    assert (ccd.base.batch_size, ccd.base.fit.epochs, ccd.decay) == (17, 2, 0.25)
    assert ccd.update.batch_size != 19


def test_the_folder_of_a_cell_follows_its_settings_alone(suite):
    keys = {cell.label: cell.key for cell in cells(suite)}
    again = from_dict(SuiteConfig, changed(name="other", seeds=[1, 0, 2]))
    assert keys.items() <= {cell.label: cell.key for cell in cells(again)}.items()
    wider = from_dict(SuiteConfig, changed(backbones={"MF": {"backbone": "MF", "dim": 3}}))
    assert not set(keys.values()) & {cell.key for cell in cells(wider)}
    taken = replace(cells(suite)[0], config=replace(cells(suite)[0].config, base_from="x"))
    assert taken.key == cells(suite)[0].key


def test_backbones_go_where_a_strategy_has_one():
    two = {"strategy": "counting:Twofold", "settings": {}}
    plain = {"strategy": "counting:Counting", "settings": {}}
    strategies = {"two": {**two, "backbone_key": "second"}, "one": plain}
    found = cells(from_dict(SuiteConfig, changed(strategies=strategies, scorers=["counts"])))
    assert {cell.backbone for cell in found} == {"MF"}
    assert [found[0].config.settings[key]["dim"] for key in ("backbone", "second")] == [64, 2]
    assert found[2].config.settings["backbone"]["dim"] == 2
    with pytest.raises(ConfigError, match=r"strategy 'two': .* are backbones; name the one to rep"):
        cells(from_dict(SuiteConfig, changed(strategies={"two": two}, scorers=["counts"])))
    alone = from_dict(SuiteConfig, changed(backbones={}))
    assert {cell.backbone for cell in cells(alone)} == {"own"}


@pytest.mark.parametrize(
    ("source", "protocols"), [("stream", ["own"]), ("presplit", ["next", "within"])]
)
def test_a_stored_stream_keeps_its_protocol(source, protocols):
    data = {"blocks": {"source": source, "path": "somewhere"}}
    found = cells(from_dict(SuiteConfig, changed(data=data, protocols=["within", "next"])))
    assert sorted({cell.protocol for cell in found}) == protocols
    assert len(found) == 4 * len(protocols)


def test_a_suite_takes_overrides(suite, tmp_path):
    from ccdgraph.config import to_toml

    (tmp_path / "mine.toml").write_text(to_toml(suite))
    assert load_suite(tmp_path / "mine.toml", ["seeds=[7]"]) == replace(suite, seeds=(7,))


def test_suites_survive_their_file(suite, tmp_path):
    from ccdgraph.config import to_toml

    (tmp_path / "mine.toml").write_text(to_toml(suite))
    assert load_suite(tmp_path / "mine.toml") == suite
    (tmp_path / "mine.toml").write_text(to_toml(replace(suite, name="")))
    assert load_suite(tmp_path / "mine.toml").name == "mine"
    assert from_dict(SuiteConfig, to_dict(suite)) == suite


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"strategies": {"FineTuen": {}}, "scorers": "none"},
            "strategy 'FineTuen': no 'FineTuen' in module 'ccdgraph.continual'; did you mean",
        ),
        (
            {"strategies": {"CCD": {"settings": {"studnet": {}}}}},
            "strategy 'CCD': unknown key 'settings.studnet'; did you mean 'student'",
        ),
        (
            {"strategies": {"CCD": {"settings": {"student": {"dim": 3}}}}},
            "strategy 'CCD': it sets 'student', and so do the backbones of the suite",
        ),
        ({"strategies": {"CCD": {"setings": {}}}}, "unknown key 'strategies.CCD.setings'"),
        (
            {"shared": {"decay": 0.5, "dekay": 0.5}},
            "'shared.dekay' is a setting of no strategy of the suite; remove it",
        ),
        (
            {"shared": {"decay": 0.5}, "strategies": {"FineTuen": {}}, "scorers": "none"},
            "strategy 'FineTuen': no 'FineTuen' in module 'ccdgraph.continual'; did you mean",
        ),
        ({"shared": {"decay": "much"}}, "strategy 'CCD': 'settings.decay' is the str 'much'"),
        ({"strategies": {}}, "'strategies' is empty; a suite needs at least one"),
        ({"seeds": []}, "'seeds' is empty"),
        ({"seeds": [1, 1]}, "'seeds' names an entry twice"),
        ({"reference": "CDC"}, "'reference' is 'CDC', expected one of .'CCD', 'CCD/no proxies'"),
        ({"protocols": ["after"]}, "'protocols.0' is 'after', expected one of"),
        ({"scorers": ["modle"]}, "strategy 'CCD': 'evaluate.scorers.0' is 'modle'"),
        ({"data": {"x": {"protocol": "next"}}}, "'data.x.protocol' is set; set 'protocols'"),
        (
            {"strategies": {"CCD": {}, "again": {"strategy": "CCD"}}},
            "cells '.* CCD seed 0' and '.* again seed 0' are the same run; leave one out",
        ),
    ],
)
def test_suites_that_cannot_be_run_are_refused(entries, message):
    with pytest.raises(ConfigError, match=message):
        cells(from_dict(SuiteConfig, changed(**entries)))
