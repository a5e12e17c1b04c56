"""A suite that is small enough to be repeated."""

FIT = {"epochs": 2}


def table() -> dict:
    """Two strategies, one of them CCD with a variant, of two seeds."""
    ccd = {
        "teachers": [{"dim": 3}, {"backbone": "MF", "dim": 3}],
        **{name: {"fit": FIT} for name in ("base", "generation", "update", "teacher")},
    }
    return {
        "name": "tiny",
        "seeds": [0, 1],
        "ks": [5],
        "scorers": ["student", "teacher", "generated", "stability"],
        "data": {
            "planted": {
                "num_blocks": 2,
                "synthetic": {
                    "num_users": 60,
                    "num_items": 60,
                    "num_interactions": 900,
                    "num_communities": 4,
                },
            }
        },
        "backbones": {"MF": {"backbone": "MF", "dim": 2}},
        "strategies": {
            "CCD": {"settings": ccd, "variants": {"no proxies": {"keep_stability": [0.5]}}},
        },
    }
