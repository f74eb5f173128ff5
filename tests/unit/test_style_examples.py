"""Every file of examples/ runs, small, and gives a picture."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example(path: Path) -> None:
    image = runpy.run_path(str(path))["main"](size=48, steps=2)
    assert image.ndim == 3
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"big", "clip", "colors", "interrupted", "portrait", "regions"}
