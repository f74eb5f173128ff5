"""What a caller does wrong is answered with one line: the op in brackets, the rule, and what was received."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from nstcore.errors import ArgumentError, DTypeError, ShapeError
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


def test_big_endian_arrays_are_converted(op: Op, run: Run) -> None:
    """A file from another machine may hold them."""
    inputs = op.cases[0].inputs("float32")
    swapped = [x.astype(x.dtype.newbyteorder(">")) for x in inputs]
    for got, expected in zip(run(op, swapped, op.cases[0]), run(op, inputs, op.cases[0]), strict=True):
        assert got.dtype == expected.dtype
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, expected)


def test_overflow_gives_no_warning(op: Op, run: Run) -> None:
    """Warnings are errors in these tests; what is infinite or NaN says so itself."""
    inputs, floats = op.cases[0].inputs("float32"), float_inputs(op.cases[0])
    huge = [np.full_like(x, 3e38) if i in floats else x for i, x in enumerate(inputs)]
    run(op, huge, op.cases[0])
    if op.gradient:
        run.gradients(op, huge, op.cases[0], floats)


def test_native_kernels_do_not_mix_types(op: Op, run: Run) -> None:
    inputs, floats = op.cases[0].inputs("float32"), float_inputs(op.cases[0])
    if op.cpu is None or len(floats) < 2:
        return
    wrong = [x.astype("float64") if i == floats[-1] else x for i, x in enumerate(inputs)]
    assert_refused(op, run, wrong, DTypeError, wrong[floats[-1]])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"stride": 2**70}, "stride of one or two whole numbers, at most 1048576, got 1180591620717411303424"),
        ({"stride": (1, 2**20 + 1)}, r"stride of .*at most 1048576, got \(1, 1048577\)"),
        ({"stride": (True, 1)}, r"stride of .*at least 1, got \(True, 1\)"),
        ({"stride": 1.5}, "stride of .*at least 1, got 1.5"),
        ({"padding": 2**40}, "padding of .*at most 1048576, got 1099511627776"),
    ],
)
def test_conv2d_refuses_what_no_array_can_be(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[conv2d\] .*{words}$"):
        OPS["conv2d"].public(np.ones((1, 4, 4, 1)), np.ones((1, 3, 3, 1)), **params)


def test_conv2d_refuses_a_result_that_no_array_can_hold() -> None:
    with pytest.raises(ArgumentError, match=r"that an array can hold, got \(1, 2097156, 2097156, 262144\)"):
        OPS["conv2d"].public(np.ones((1, 4, 4, 1)), np.ones((2**18, 1, 1, 1)), padding=2**20)


def test_a_name_is_registered_once() -> None:
    from nstcore.ops._op import register

    with pytest.raises(ValueError, match=r"gram.*twice"):
        register(OPS["gram"])
