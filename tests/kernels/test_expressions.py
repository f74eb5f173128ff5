"""Ops without CUDA kernels of their own: what NumPy's functions make of arrays on a device, in forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import cupy_stand_in as cupy

from nstcore import Tensor, ops, use_backend
from nstcore.ops import Case, Op

from .test_parity import GRADIENT_SLACK, assert_agrees, values_and_gradients


def selects(op: Op) -> bool:
    """Ops that run their reference everywhere."""
    return op.cuda is None


def test_values_and_gradients(op: Op, case: Case, dtype: str) -> None:
    inputs = case.inputs(dtype)
    values, gradients = values_and_gradients(op, inputs, case, "cuda-on-cpu")
    precise = [x if i in case.integers else x.astype(np.float64) for i, x in enumerate(inputs)]
    exact_values, exact_gradients = values_and_gradients(op, precise, case, "reference")
    for got, exact in zip((*values, *gradients), (*exact_values, *exact_gradients), strict=True):
        assert_agrees(got, exact, dtype, GRADIENT_SLACK * op.allowed(case, dtype))


class TestMixing:
    """Where arrays are decides where is computed."""

    def test_one_on_the_device_takes_the_others_there(self) -> None:
        on_device = cupy.asarray(np.ones((2, 3)))
        total = ops.add(on_device, np.ones((2, 3)))
        assert isinstance(total, cupy.ndarray)
        np.testing.assert_array_equal(total.get(), 2)

    def test_numbers(self) -> None:
        x = Tensor(cupy.asarray(np.ones(3, np.float32)), requires_grad=True)
        (2 * x + 1).sum().backward()
        assert isinstance(x.grad, cupy.ndarray)
        assert x.grad.dtype == np.float32
        np.testing.assert_array_equal(x.grad.get(), 2)

    def test_gradients_add_up(self) -> None:
        x = Tensor(cupy.asarray(np.ones(3)), requires_grad=True)
        for _ in range(2):
            (x * x).sum().backward()
        np.testing.assert_array_equal(x.grad.get(), 4)

    def test_an_index_on_the_device(self) -> None:
        x = Tensor(cupy.asarray(np.arange(4.0)), requires_grad=True)
        y = x[cupy.asarray(np.array([1, 1, 3]))]
        np.testing.assert_array_equal(y.data.get(), [1, 1, 3])
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.get(), [0, 2, 0, 1])

    def test_the_gradient_of_a_host_tensor_is_on_the_device(self) -> None:
        x = Tensor(np.ones((1, 2, 2, 3)), requires_grad=True)
        with use_backend("cuda-on-cpu"):
            y = ops.gram(x).sum()
        y.backward()  # after the with block: the tape remembers where it was
        np.testing.assert_array_equal(x.grad.get(), 6)

    def test_repr_and_item(self) -> None:
        x = Tensor(cupy.asarray(np.float32([1, 2])))
        assert repr(x) == "tensor([1., 2.], dtype=float32)"
        assert x.sum().item() == 3

    @pytest.mark.parametrize("given", [np.ones(3), cupy.asarray(np.ones(3))], ids=["host", "device"])
    def test_gradient_from_either_place(self, given: Any) -> None:
        x = Tensor(cupy.asarray(np.ones(3)), requires_grad=True)
        (3 * x).backward(given)
        np.testing.assert_array_equal(x.grad.get(), 3)
