"""The options of a style transfer: what is refused and why, and how weights become shares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstcore.errors import ArgumentError
from nstcore.style import Settings

WEIGHTS = st.floats(1e-6, 1e6)
LAYERS = st.sampled_from(["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1", "pool3"])


def test_the_defaults_are_valid() -> None:
    settings = Settings()
    assert settings.content_shares == {"conv4_2": 1.0}
    assert sum(settings.style_shares.values()) == pytest.approx(1)
    assert set(Settings.names()) >= {"size", "steps", "content_weight", "style_weight", "blend", "seed"}


@pytest.mark.parametrize("name", ["size", "steps", "seed"])
@pytest.mark.parametrize("value", [-1, 1.5, "3", None, True, 2**64, math.nan])
def test_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[style\] expects {name} as a whole number from \d+ to \d+, got "):
        Settings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("size", 15), ("size", 16385), ("steps", 0), ("steps", 1_000_001)])
def test_whole_numbers_out_of_range(name: str, value: int) -> None:
    with pytest.raises(ArgumentError, match=rf"expects {name} as a whole number from \d+ to \d+, got {value}"):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    settings = Settings(size=np.int64(64), content_weight=np.float32(2), blend=np.array([1.0, 3.0]))  # type: ignore[arg-type]
    assert settings.blend_shares(2) == [0.25, 0.75]


@pytest.mark.parametrize("name", ["content_weight", "style_weight", "tv_weight", "learning_rate"])
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, "1", True, 1e13, 10**400])
def test_weights(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[style\] expects {name} as a number from 0 to 1e\+12, got "):
        Settings(**{name: value})


def test_some_weight_is_needed() -> None:
    with pytest.raises(ArgumentError, match="content_weight or style_weight above 0, got 0 for both"):
        Settings(content_weight=0, style_weight=0, tv_weight=1)
    with pytest.raises(ArgumentError, match="learning_rate above 0, got 0"):
        Settings(learning_rate=0)
    with pytest.raises(ArgumentError, match="learning_rate is for optimizer adam or gd"):
        Settings(learning_rate=0.1, optimizer="lbfgs")
    assert Settings(learning_rate=0.1, optimizer="adam").learning_rate == 0.1
    Settings(content_weight=0)
    Settings(style_weight=0)


@pytest.mark.parametrize("name", ["init", "optimizer", "pooling"])
@pytest.mark.parametrize("value", ["sideways", "", None, 3, ["max"]])
def test_choices(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[style\] expects {name} to be one of \w+, .*, got "):
        Settings(**{name: value})


@pytest.mark.parametrize("name", ["content_layers", "style_layers"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((), "one or more different layer names"),
        ({}, "one or more different layer names"),
        (["conv1_1", "conv1_1"], "one or more different layer names"),
        ([1, 2], "one or more different layer names"),
        ([["conv1_1"]], "one or more different layer names"),
        ("conv1_1", "as a sequence, got 'conv1_1'"),
        (3, "as a sequence, got 3"),
        (None, "as a sequence, got None"),
        ({"conv1_1": -1.0}, r"expects the weight of conv1_1 in \w+ as a number"),
        ({"conv1_1": "heavy"}, r"expects the weight of conv1_1 in \w+ as a number"),
        ({"conv1_1": 0.0, "conv2_1": 0.0}, "a weight above 0 in"),
    ],
)
def test_layers(name: str, value: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("blend", "words"),
    [
        ([1.0], "one blend weight a style, got 1 for 2 styles"),
        ([1.0, 2.0, 3.0], "one blend weight a style, got 3 for 2 styles"),
        ([1.0, -2.0], "each weight in blend as a number"),
        ([1.0, math.nan], "each weight in blend as a number"),
        ([0.0, 0.0], "a weight above 0 in blend, got only zeros"),
        (0.5, "blend as a sequence, got 0.5"),
        ("12", "blend as a sequence, got '12'"),
    ],
)
def test_blends(blend: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        Settings(blend=blend).blend_shares(2)


def test_equal_parts_are_the_default_blend() -> None:
    assert Settings().blend_shares(4) == [0.25] * 4


@given(st.dictionaries(LAYERS, WEIGHTS, min_size=1))
def test_layer_weights_become_shares_of_one(weights: dict[str, float]) -> None:
    shares = Settings(style_layers=weights).style_shares
    total = sum(weights.values())
    assert list(shares) == list(weights)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share == pytest.approx(weights[name] / total) for name, share in shares.items())


@given(st.lists(WEIGHTS, min_size=1, max_size=6), st.floats(1e-3, 1e3))
def test_only_ratios_count_in_a_blend(weights: list[float], factor: float) -> None:
    once = Settings(blend=weights).blend_shares(len(weights))
    scaled = Settings(blend=[factor * w for w in weights]).blend_shares(len(weights))
    assert sum(once) == pytest.approx(1)
    assert scaled == pytest.approx(once)


@given(st.lists(LAYERS, min_size=1, unique=True))
def test_names_alone_weigh_the_same(names: list[str]) -> None:
    assert Settings(content_layers=names).content_shares == pytest.approx(dict.fromkeys(names, 1 / len(names)))
