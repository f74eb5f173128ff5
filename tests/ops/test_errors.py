"""What a caller does wrong is answered with one line: the op in brackets, the rule, and what was received."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nstcore.errors import DTypeError, ShapeError
from nstcore.ops import OPS, Op
from nstcore.ops._op import parse_signature

from .conftest import Run, float_inputs


def first_case(op: Op) -> tuple[list[np.ndarray], list[list[str]]]:
    """Inputs of the first case, and the names of their axes."""
    inputs = op.cases[0].inputs("float32")
    return inputs, parse_signature(op.signature)[0][: len(inputs)]


def assert_refused(op: Op, run: Run, inputs: list[np.ndarray], error: type[Exception], wrong: np.ndarray) -> None:
    tag = re.escape(f"[{op.name}] ")
    with pytest.raises(error, match=f"^{tag}") as caught:
        run(op, inputs, op.cases[0])
    message = str(caught.value)
    assert "\n" not in message
    received = [str(wrong.shape)] if error is ShapeError else [str(wrong.dtype), wrong.dtype.name]
    assert any(part in message for part in received), f"{received} not in {message}"


def test_wrong_rank(op: Op, run: Run) -> None:
    inputs, names = first_case(op)
    for i, axes in enumerate(names):
        if axes == ["..."] or not axes:
            continue
        fewer = np.zeros((2,) * (len([a for a in axes if a != "..."]) - 1), inputs[i].dtype)
        more = np.zeros((*inputs[i].shape, 2), inputs[i].dtype)
        for wrong in [fewer] + [more] * ("..." not in axes):
            assert_refused(op, run, [*inputs[:i], wrong, *inputs[i + 1 :]], ShapeError, wrong)


def test_axes_that_disagree(op: Op, run: Run) -> None:
    inputs, names = first_case(op)
    for i, axes in enumerate(names):
        for position, axis in enumerate(axes):
            shared = axis != "..." and any(axis in other for j, other in enumerate(names) if j != i)
            if not shared and not axis.isdecimal():
                continue
            shape = list(inputs[i].shape)
            shape[position - len(axes)] += 1
            wrong = np.zeros(shape, inputs[i].dtype)
            assert_refused(op, run, [*inputs[:i], wrong, *inputs[i + 1 :]], ShapeError, wrong)


@pytest.mark.parametrize("kind", ["complex64", "object", "str"])
def test_no_numbers(op: Op, run: Run, kind: str) -> None:
    inputs, _ = first_case(op)
    for i in float_inputs(op.cases[0]):
        wrong = inputs[i].astype(kind)
        assert_refused(op, run, [*inputs[:i], wrong, *inputs[i + 1 :]], DTypeError, wrong)


@pytest.mark.parametrize("kind", ["int32", "float16", "uint8"])
def test_native_kernels_take_the_types_of_their_record(op: Op, run: Run, kind: str) -> None:
    if op.cpu is None:
        return
    inputs, _ = first_case(op)
    floats = float_inputs(op.cases[0])
    wrong = [x.astype(kind) if i in floats else x for i, x in enumerate(inputs)]
    assert_refused(op, run, wrong, DTypeError, wrong[floats[0]])


def test_native_kernels_do_not_mix_types(op: Op, run: Run) -> None:
    inputs, floats = op.cases[0].inputs("float32"), float_inputs(op.cases[0])
    if op.cpu is None or len(floats) < 2:
        return
    wrong = [x.astype("float64") if i == floats[-1] else x for i, x in enumerate(inputs)]
    assert_refused(op, run, wrong, DTypeError, wrong[floats[-1]])


def test_a_name_is_registered_once() -> None:
    from nstcore.ops._op import register

    with pytest.raises(ValueError, match=r"gram.*twice"):
        register(OPS["gram"])
