"""Any method of distillation generates the student of CCD."""

from dataclasses import replace

import pytest
import torch
from small_ccd import CONFIG, learn, stream, with_settings

from ccdgraph.config import ConfigError, from_dict
from ccdgraph.continual import CCD, CCDConfig
from ccdgraph.distill.methods import expand
from ccdgraph.testing import check_strategy

SMALL = {
    "cd": {"k": 2, "depth": 5},
    "concf": {"k": 4, "depth": 10, "start": 0},
    "hetcomp": {"k": 10, "compared": 5, "order": 5, "every": 1},
    "htd": {"num_groups": 3},
    "ir-rrd": {"k": 3, "k_users": 3, "depth": 10},
    "sampled-rrd": {"k": 3, "depth": 10},
}
COMBINATIONS = [
    *(("hetcomp",), ("htd", "rrd"), ("de-rrd",), ("phr", "ir"), ("ftd",), ("rd",), ("cd",)),
    *(("ir-rrd",), ("concf",)),
]


def with_methods(names: tuple[str, ...]) -> CCDConfig:
    tables = {name: SMALL[name] for name in expand(names) if name in SMALL}
    return replace(CONFIG, generation=replace(CONFIG.generation, distill=names, methods=tables))


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_the_student_is_generated_by_any_methods(names):
    """It ends elsewhere than without distillation, and so it does on the second block."""
    trace = learn(with_methods(names), 2)[1]
    alone = learn(with_settings({"generation.distill": ()}), 2)[1]
    for stage in ("0/generation", "1/generation"):
        ours, theirs = trace[stage]["student/user"], alone[stage]["student/user"]
        assert ours.isfinite().all() and not torch.equal(ours, theirs)


def test_trajectories_are_taken_up_after_a_stop():
    """Stopped and resumed, a student that follows trajectories ends with the same bits."""
    config = with_methods(("hetcomp",))
    check_strategy(lambda _: CCD(config), stream(valid=True))


def test_settings_that_do_not_fit_are_named_with_their_place():
    with pytest.raises(ConfigError, match="did you mean 'hetcomp'"):
        from_dict(CCDConfig, {"generation": {"distill": ["hetcmp"]}})
    with pytest.raises(ConfigError, match=r"'methods.rrd' has no effect; set 'weight_user'"):
        from_dict(CCDConfig, {"generation": {"methods": {"rrd": {"k": 3}}}})
    with pytest.raises(ConfigError, match=r"unknown key 'methods.de.experts'"):
        table = {"distill": ["de"], "methods": {"de": {"experts": 3}}}
        from_dict(CCDConfig, {"generation": table})
