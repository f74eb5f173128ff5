"""Ops without CUDA kernels of their own: what NumPy's functions make of arrays on a device, in forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import cupy_stand_in as cupy

from nstcore import Tensor, ops, tensor, use_backend
from nstcore.ops import Case, Op
from nstcore.ops.elementwise import relu_backward

from .test_parity import GRADIENT_SLACK, assert_agrees, values_and_gradients


def selects(op: Op) -> bool:
    """Ops that run their reference everywhere."""
    return op.cuda is None


@pytest.fixture(params=["cuda-on-cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def test_values_and_gradients(op: Op, case: Case, dtype: str, backend: str) -> None:
    inputs = case.inputs(dtype)
    values, gradients = values_and_gradients(op, inputs, case, backend)
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

    @pytest.mark.parametrize("kind", [None, "float32"])
    def test_a_tensor_of_a_copy(self, kind: str | None) -> None:
        x = cupy.asarray(np.ones(3))
        made = tensor(x, requires_grad=True, dtype=kind)
        assert isinstance(made.data, cupy.ndarray)
        assert made.dtype == (kind or np.float64)
        x[...] = 2
        np.testing.assert_array_equal(made.data.get(), 1)

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

    @pytest.mark.parametrize("place", [np.asarray, cupy.asarray])
    def test_a_gradient_is_where_its_tensor_is(self, place: Any) -> None:
        x = Tensor(place(np.ones((1, 2, 2, 3))), requires_grad=True)
        for total in (6, 12):
            with use_backend("cuda-on-cpu"):
                y = ops.gram(x).sum()
            assert isinstance(y.data, cupy.ndarray)
            y.backward()  # after the with block: the tape remembers where it was
            assert type(x.grad) is type(x.data)
            np.testing.assert_array_equal(cupy.asnumpy(x.grad), total)

    def test_relu_rules(self) -> None:
        """The way back of a ReLU follows its rule, also of one that the convolution would fuse."""
        x, w = np.array([1.0, -1.0, 2.0]).reshape(1, 1, 3, 1), np.ones((1, 1, 1, 1))
        expected = {"gradient": [-1, 0, 3], "deconvnet": [0, 3, 3], "guided": [0, 0, 3], "straight": [-1, 3, 3]}
        for rule, passed in expected.items():
            for function in (ops.relu, lambda t: ops.conv2d(t, w, activation="relu")):
                t = Tensor(cupy.asarray(x), requires_grad=True)
                with relu_backward(rule):  # type: ignore[arg-type]
                    y = function(t)
                y.backward(np.array([-1.0, 3.0, 3.0]).reshape(x.shape))
                np.testing.assert_array_equal(t.grad.get().ravel(), passed)

    def test_a_fused_pool_is_the_host_s_alone(self) -> None:
        """Where the arrays are on a device, its kernels run, though the CPU's are chosen and could pool in one pass."""
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal((1, 9, 11, 16)), rng.standard_normal((32, 3, 3, 16))
        found = []
        for place in (cupy.asarray, np.asarray):
            t = Tensor(place(x), requires_grad=True)
            y = ops.conv2d(t, w, padding=1, activation="relu", pool=True)
            y.backward(np.ones(y.shape))
            found.append((cupy.asnumpy(y.data), cupy.asnumpy(t.grad)))
        for got, expected in zip(*found, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("on_device", [False, True])
    def test_moments_in_either_place(self, on_device: bool) -> None:
        """What batch_norm measures goes where `found` is, and given moments are taken from where they are."""
        place = cupy.asarray if on_device else np.asarray
        x = np.random.default_rng(0).standard_normal((5, 3))
        found = place(np.zeros((2, 3)))
        for arrays in ((cupy.asarray(x), np.ones(3), np.zeros(3)), (x, np.ones(3), cupy.asarray(np.zeros(3)))):
            y = ops.batch_norm(*arrays, found=found)
            np.testing.assert_allclose(cupy.asnumpy(found), [x.mean(0), x.var(0)], rtol=1e-12)
            given = ops.batch_norm(*arrays, moments=place(np.stack([x.mean(0), x.var(0)])))
            assert isinstance(given, cupy.ndarray)
            np.testing.assert_allclose(given.get(), y.get(), rtol=1e-12)

    def test_labels_and_matrices_on_the_device(self) -> None:
        a, b = np.zeros((2, 3)), np.ones((2, 3))
        loss = ops.contrastive_loss(a, b, cupy.asarray(np.array([1, 0])), margin=1.0, reduction="sum")
        assert float(loss) == 1.5
        turned = ops.warp_affine(np.ones((1, 2, 2, 1)), cupy.asarray(np.eye(3)[:2]), 2)
        np.testing.assert_array_equal(cupy.asnumpy(turned), 1)

    def test_repr_and_item(self) -> None:
        x = Tensor(cupy.asarray(np.float32([1, 2])))
        assert repr(x) == "tensor([1., 2.], dtype=float32)"
        assert x.sum().item() == 3

    @pytest.mark.parametrize("given", [np.ones(3), cupy.asarray(np.ones(3))], ids=["host", "device"])
    def test_gradient_from_either_place(self, given: Any) -> None:
        x = Tensor(cupy.asarray(np.ones(3)), requires_grad=True)
        (3 * x).backward(given)
        np.testing.assert_array_equal(x.grad.get(), 3)
