"""Every public function of `nst.visualize` says where it comes from, and its example is true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest

from nstcore import ops, visualize

DOCS = Path(__file__).parents[2] / "docs"
MODULES = sorted(module.name for module in pkgutil.iter_modules(visualize.__path__))
FUNCTIONS = [name for name in visualize.__all__ if inspect.isfunction(getattr(visualize, name))]
HELPERS = ("layer_names", "load_index", "receptive_fields")  # of which the one beside them says it


@pytest.mark.parametrize("name", ["", *MODULES])
def test_examples(name: str) -> None:
    module = importlib.import_module(f"nstcore.visualize.{name}".rstrip("."))
    result = doctest.testmod(module)
    assert result.failed == 0


@pytest.mark.parametrize("name", ["normalization", "elementwise"])
def test_examples_of_the_ops(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"nstcore.ops.{name}"), extraglobs={"np": np}).failed == 0


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - set(HELPERS)))
def test_says_where_it_comes_from(name: str) -> None:
    text = inspect.getdoc(getattr(visualize, name)) or ""
    assert "Source:" in text or "(Zeiler" in text
    assert ">>>" in text


@pytest.mark.parametrize("name", visualize.__all__)
def test_is_documented(name: str) -> None:
    assert (getattr(visualize, name).__doc__ or "").strip()


def test_the_picture_of_the_page_is_what_its_command_makes() -> None:
    from nstcore.images import load
    from nstcore.visualize.show import sheet_shape

    text = (DOCS / "visualize.md").read_text(encoding="utf-8")
    assert "](images/patches.jpg)" in text
    picture = DOCS / "images" / "patches.jpg"
    assert picture.stat().st_size <= 120 * 1024
    (command,) = [line for line in text.splitlines() if line.endswith("-o patches.jpg")]
    words = command.split()
    units = len(words[words.index("--layers") + 1].split(",")) * len(words[words.index("--units") + 1].split(","))
    assert load(picture).shape[:2] == sheet_shape(units, 1, 9, int(words[words.index("--cell") + 1]))


def test_relu_backward_is_exported() -> None:
    assert ops.relu_backward is not None
