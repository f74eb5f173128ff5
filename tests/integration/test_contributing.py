"""The worked example of CONTRIBUTING.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nstcore import gradcheck, tensor
from nstcore.errors import DTypeError
from nstcore.ops import OPS, elementwise

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_elementwise_example() -> None:
    if not GUIDE.is_file():
        pytest.skip("the tests lie outside of the source tree")
    example = re.search(r"^```python\n(def tanh.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert example
    names = dict(vars(elementwise))
    try:
        exec(example[1], names)
        tanh, record = names["tanh"], OPS["tanh"]
        for case in record.cases:
            (x,) = case.inputs("float64")
            np.testing.assert_array_equal(tanh(x), np.tanh(x))
            assert gradcheck(tanh, x).max_error < 1e-6
        assert tanh(tensor([0.5])).dtype == np.float32
        with pytest.raises(DTypeError, match=r"^\[tanh\]"):
            tanh(np.array([1]))
    finally:
        OPS.pop("tanh", None)


@pytest.mark.parametrize(
    "path", ["csrc/gram/gram.h", "csrc/gram/gram_cpu.cpp", "python/bind_gram.cpp", "nstcore/ops/gram.py"]
)
def test_the_files_it_names_exist(path: str) -> None:
    if not GUIDE.is_file():
        pytest.skip("the tests lie outside of the source tree")
    assert f"`{path}`" in GUIDE.read_text(encoding="utf-8")
    assert (GUIDE.parent / path).is_file()
