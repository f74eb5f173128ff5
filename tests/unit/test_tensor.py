"""`Tensor`: making one, operators, element types, NumPy beside it, and its methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nstcore as nst
from nstcore import Tensor, ops, tensor
from nstcore.errors import ArgumentError, DTypeError, GradientError, ShapeError


def leaf(values: Any, dtype: str = "float32") -> Tensor:
    return tensor(values, requires_grad=True, dtype=dtype)


class TestMaking:
    def test_lists_become_float32(self) -> None:
        assert tensor([1.0, 2.0]).dtype == np.float32
        assert tensor(3.5).dtype == np.float32

    def test_arrays_and_integers_keep_their_type(self) -> None:
        assert tensor(np.zeros(2)).dtype == np.float64
        assert tensor(np.float64(1)).dtype == np.float64
        assert tensor([1, 2]).dtype == np.dtype(int)

    def test_it_is_a_copy(self) -> None:
        source = np.zeros(3, np.float32)
        t = tensor(source)
        source[0] = 5
        assert t.data[0] == 0

    def test_of_a_tensor_is_a_new_leaf(self) -> None:
        x = leaf([1.0])
        y = tensor(x * 2, requires_grad=True)
        assert y.is_leaf
        assert y.data is not x.data

    @pytest.mark.parametrize("value", ["text", [None], 1j, object()])
    def test_no_numbers(self, value: Any) -> None:
        with pytest.raises(DTypeError, match=r"^\[tensor\] expects real numbers, got"):
            tensor(value)

    def test_ragged_rows(self) -> None:
        with pytest.raises(ShapeError, match=r"^\[tensor\] expects numbers in rows of equal length"):
            tensor([[1.0, 2.0], [3.0]])

    @pytest.mark.parametrize("dtype", ["int64", "float16", "bool"])
    def test_gradient_needs_a_float_type(self, dtype: str) -> None:
        with pytest.raises(DTypeError, match=dtype):
            tensor(np.zeros(2, dtype), requires_grad=True)

    def test_class_wraps_arrays_only(self) -> None:
        with pytest.raises(DTypeError, match=r"use nst\.tensor"):
            Tensor([1.0, 2.0])  # type: ignore[arg-type]

    def test_class_does_not_copy(self) -> None:
        data = np.zeros(3)
        assert Tensor(data).data is data


class TestOperators:
    @pytest.mark.parametrize(
        ("formula", "value", "da", "db"),
        [
            (lambda a, b: a + b, 5.0, 1.0, 1.0),
            (lambda a, b: a - b, -1.0, 1.0, -1.0),
            (lambda a, b: a * b, 6.0, 3.0, 2.0),
            (lambda a, b: a / b, 2 / 3, 1 / 3, -2 / 9),
            (lambda a, b: -a + b**2, 7.0, -1.0, 6.0),
            (lambda a, b: 1 - a + b * 0, -1.0, -1.0, 0.0),
            (lambda a, b: 6 / a + 2 * b, 9.0, -1.5, 2.0),
            (lambda a, b: 3 + a + b, 8.0, 1.0, 1.0),
        ],
    )
    def test_values_and_gradients(self, formula: Any, value: float, da: float, db: float) -> None:
        a, b = leaf(2.0, "float64"), leaf(3.0, "float64")
        y = formula(a, b)
        y.backward()
        assert y.item() == pytest.approx(value)
        assert a.grad == pytest.approx(da)
        assert b.grad == pytest.approx(db)

    def test_matmul_on_either_side(self) -> None:
        m = np.arange(6, dtype=np.float64).reshape(2, 3)
        x = leaf(np.ones((3, 2)), "float64")
        np.testing.assert_array_equal((m @ x).data, m @ x.data)
        np.testing.assert_array_equal((x @ m).data, x.data @ m)
        (m @ x).sum().backward()
        np.testing.assert_array_equal(x.grad, m.T @ np.ones((2, 2)))

    def test_indexing_and_iteration(self) -> None:
        x = leaf([1.0, 2.0, 3.0])
        assert [float(v) for v in x] == [1.0, 2.0, 3.0]
        (x[1:].sum() + x[-1] + x[[0, 0]].sum() + x[np.array([False, True, False])].sum()).backward()
        np.testing.assert_array_equal(x.grad, [2, 2, 2])
        with pytest.raises(IndexError):
            x[3]

    def test_indexing_with_tensors_and_empty_lists(self) -> None:
        x = leaf([1.0, 2.0, 3.0])
        np.testing.assert_array_equal(x[tensor([2, 0])].data, [3, 1])
        assert x[[]].shape == (0,)

    def test_methods(self) -> None:
        x = leaf(np.arange(6.0).reshape(2, 3))
        assert x.T.shape == (3, 2)
        assert x.transpose(1, 0).shape == x.transpose().shape == (3, 2)
        assert x.reshape(-1).shape == x.reshape(6).shape == (6,)
        assert x.reshape(3, 2).shape == (3, 2)
        assert x.sum(axis=0).shape == (3,)
        assert x.mean((0, 1), keepdims=True).shape == (1, 1)
        assert (x.ndim, x.size, len(x), x.shape) == (2, 6, 2, (2, 3))

    def test_repr_names_type_and_gradient(self) -> None:
        assert repr(leaf([1.0])) == "tensor([1.], dtype=float32, requires_grad=True)"
        assert repr(tensor(2.0)) == "tensor(2., dtype=float32)"

    def test_tensors_are_not_assigned_to(self) -> None:
        with pytest.raises(TypeError, match=r"\.data"):
            leaf([1.0])[0] = 2

    def test_truth_and_float(self) -> None:
        assert tensor(1.0)
        assert not tensor(0.0)
        assert float(tensor([2.5])) == 2.5


class TestBroadcasting:
    shapes = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=0)

    @settings(deadline=None, max_examples=60)
    @given(shapes)
    def test_gradients_have_the_shape_of_their_input(self, drawn: Any) -> None:
        (first, second), result = drawn.input_shapes, drawn.result_shape
        a, b = leaf(np.ones(first)), leaf(np.full(second, 2.0))
        y = a * b + a
        assert y.shape == result
        y.backward(np.ones(result))
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.shape == first
        assert b.grad.shape == second
        assert a.grad.sum() == 3 * np.prod(result)
        assert b.grad.sum() == np.prod(result)

    @pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum"])
    def test_shapes_that_do_not_fit(self, name: str) -> None:
        with pytest.raises(
            ShapeError, match=rf"^\[{name}\] expects shapes that broadcast together, got \(2,\) and \(3,\)"
        ):
            getattr(ops, name)(np.zeros(2), np.zeros(3))

    def test_matmul_broadcasts_leading_axes_only(self) -> None:
        with pytest.raises(ShapeError, match=r"^\[matmul\] .*\(2, 3, 4\) and \(5, 4, 1\)"):
            ops.matmul(np.zeros((2, 3, 4)), np.zeros((5, 4, 1)))


class TestTypes:
    numbers = st.sampled_from([2, 2.5, True, np.float64(2.5), np.float32(2), np.int64(3), np.array(1.5), np.array(2)])

    @given(numbers, st.sampled_from(["add", "sub", "mul", "div", "maximum"]), st.booleans(), st.booleans())
    def test_float32_stays_float32_beside_a_number(self, number: Any, name: str, left: bool, wrapped: bool) -> None:
        x: Any = np.ones((2, 2), np.float32)
        x = tensor(x) if wrapped else x
        y = getattr(ops, name)(number, x) if left else getattr(ops, name)(x, number)
        assert y.dtype == np.float32

    def test_float32_stays_float32_through_a_long_formula(self) -> None:
        x = leaf(np.ones((2, 3)))
        y = ((x * 2 + 1) / 3 - 0.5) ** 2
        z = ops.sqrt(ops.exp(-y) + 1).mean() * np.pi
        assert z.dtype == np.float32
        assert z.shape == ()
        assert isinstance(z.data, np.ndarray)
        z.backward()
        assert x.grad is not None
        assert x.grad.dtype == np.float32

    def test_a_fraction_is_not_cut_to_an_integer(self) -> None:
        np.testing.assert_array_equal(ops.mul(np.array([1, 2]), 0.5), [0.5, 1.0])

    def test_gradient_without_axes_is_an_array(self) -> None:
        x = leaf(2.0)
        (x * x).backward()
        assert isinstance(x.grad, np.ndarray)
        (x * x).backward()
        assert isinstance(x.grad, np.ndarray)
        assert x.grad == 8

    @pytest.mark.parametrize("name", ["exp", "log", "sqrt", "relu", "sigmoid", "softplus", "absolute", "l2_normalize"])
    def test_functions_of_reals_refuse_integers(self, name: str) -> None:
        with pytest.raises(DTypeError, match=rf"^\[{name}\] expects float32 or float64, got int64 \(2,\)"):
            getattr(ops, name)(np.array([1, 2], np.int64))

    def test_functions_of_reals_take_numbers(self) -> None:
        assert ops.exp(1) == pytest.approx(np.e)

    def test_mixed_tensors_give_each_gradient_its_own_type(self) -> None:
        a, b = leaf([1.0, 2.0], "float32"), leaf([3.0, 4.0], "float64")
        (a * b).sum().backward()
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


class TestNumPyBesideIt:
    def test_operators_of_arrays_and_numpy_numbers_give_tensors(self) -> None:
        x = leaf([1.0, 2.0])
        array = np.array([3.0, 4.0], np.float32)
        for y in (array + x, array - x, array * x, array / x, np.float64(2) * x, np.float32(1) - x):
            assert isinstance(y, Tensor)
            assert y.requires_grad
            assert y.dtype == np.float32

    def test_asarray_would_lose_the_gradient(self) -> None:
        with pytest.raises(GradientError, match="detach"):
            np.asarray(leaf([1.0]))

    def test_ufuncs_do_not_swallow_tensors(self) -> None:
        with pytest.raises(TypeError):
            np.exp(leaf([1.0]))

    def test_asarray_of_a_detached_tensor(self) -> None:
        x = leaf([1.0, 2.0])
        np.testing.assert_array_equal(np.asarray(x.detach()), [1, 2])
        assert np.asarray(x.detach(), dtype=np.float64).dtype == np.float64
        assert np.asarray(x.detach()) is x.data

    def test_ops_on_arrays_give_arrays(self) -> None:
        assert type(ops.relu(np.ones(2))) is np.ndarray
        assert type(ops.sum(np.ones(2))) is np.ndarray
        assert type(ops.mean(np.ones(2))) is np.ndarray
        assert type(ops.add(1.0, 2.0)) is np.ndarray


class TestDerivativesAtZero:
    @pytest.mark.parametrize(
        "fn", [ops.sqrt, ops.log, ops.absolute, ops.relu, lambda x: x**0.5, lambda x: x**0, ops.l2_normalize]
    )
    def test_are_finite(self, fn: Any) -> None:
        x = leaf([0.0, 0.0])
        fn(x).backward(np.zeros(2) if fn is ops.log else np.ones(2))
        assert np.all(np.isfinite(x.grad))

    def test_root_log_and_kinks_take_zero(self) -> None:
        for fn in (ops.sqrt, ops.log, ops.absolute, ops.relu):
            x = leaf([0.0, 4.0])
            fn(x).backward(np.ones(2))
            assert x.grad is not None
            assert x.grad[0] == 0
            assert x.grad[1] > 0

    def test_norm_of_a_zero_row_does_not_spoil_the_others(self) -> None:
        x = leaf([[0.0, 0.0], [3.0, 4.0]])
        ops.sqrt((x * x).sum(axis=1)).sum().backward()
        np.testing.assert_allclose(x.grad, [[0, 0], [0.6, 0.8]], rtol=1e-6)

    def test_maximum_gives_a_tie_to_the_first(self) -> None:
        a, b = leaf([1.0]), leaf([1.0])
        ops.maximum(a, b).backward()
        assert (a.grad, b.grad) == (1, 0)

    def test_division_by_a_tiny_number_does_not_overflow_on_the_way(self) -> None:
        a, b = leaf([1e-30]), leaf([1e-30])
        (a / b).backward()
        np.testing.assert_allclose(b.grad, [-1e30], rtol=1e-6)

    @pytest.mark.parametrize("exponent", [np.int64(2), np.float32(2), np.float64(2), 2])
    def test_power_takes_numbers_of_numpy(self, exponent: Any) -> None:
        x = leaf([3.0])
        (x**exponent).backward()
        np.testing.assert_array_equal(x.grad, [6])

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float32", "float64"])
    def test_minus_keeps_the_type(self, dtype: str) -> None:
        x = np.array([0, 1, 5], dtype)
        y = -Tensor(x)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y.data, -x)

    def test_l2_normalize_of_rows_whose_squares_overflow(self) -> None:
        rows = np.array([[1e30, 1e30], [3e38, -3e38], [0, 3e38], [0, 0], [1e-20, 1e-20]], np.float32)
        x = leaf(rows, "float32")
        y = ops.l2_normalize(x)
        half = np.sqrt(0.5)
        expected = [[half, half], [half, -half], [0, 1], [0, 0], [1e-8, 1e-8]]
        np.testing.assert_allclose(y.data, expected, rtol=1e-6)
        y.backward(np.array([[1, 0]] * 5, np.float32))
        slopes = [[0.5 * half * 1e-30, -0.5 * half * 1e-30], [0.5 * half / 3e38, 0.5 * half / 3e38], [1 / 3e38, 0]]
        np.testing.assert_allclose(x.grad, [*slopes, [1e12, 0], [1e12, 0]], rtol=1e-5)

    def test_l2_normalize_has_the_bits_of_the_plain_formula(self) -> None:
        x = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * 100
        plain = x / np.maximum(np.sqrt(np.sum(x * x, axis=1, keepdims=True)), 1e-12)
        np.testing.assert_array_equal(ops.l2_normalize(x), plain)

    def test_a_big_endian_tensor(self) -> None:
        x = Tensor(np.arange(1, 4, dtype=">f4"), requires_grad=True)
        (x * x).sum().backward()
        np.testing.assert_array_equal(x.grad, [2, 4, 6])
        assert tensor(np.ones(3, ">f8")).dtype.isnative


class TestShaping:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda x: ops.reshape(x, (4, 2)),
                ShapeError,
                r"\[reshape\] expects a shape of 6 elements, got \(4, 2\)",
            ),
            (lambda x: ops.reshape(x, (-1, -1)), ShapeError, r"\[reshape\]"),
            (lambda x: ops.reshape(x, (-2, -3)), ShapeError, r"\[reshape\]"),
            (
                lambda x: ops.transpose(x, (0, 0)),
                ShapeError,
                r"\[transpose\] expects each axis of \(2, 3\) once",
            ),
            (lambda x: ops.transpose(x, (0, 2)), ShapeError, r"\[transpose\]"),
            (lambda x: ops.transpose(x, (0, -3)), ShapeError, r"\[transpose\]"),
            (lambda x: x.reshape(2.0, 3), ArgumentError, r"\[reshape\] expects a shape of whole numbers, got 2.0"),
            (lambda x: x.transpose(1.0, 0), ArgumentError, r"\[transpose\] expects axes of whole numbers, got 1.0"),
            (
                lambda x: ops.concat(x),
                ArgumentError,
                r"\[concat\] expects a list or tuple of arrays, got Tensor \(2, 3\)",
            ),
            (
                lambda x: ops.concat([x], axis="0"),
                ArgumentError,
                r"\[concat\] expects an axis of whole numbers, got '0'",
            ),
            (lambda x: ops.sum(x, axis=0.5), ArgumentError, r"\[sum\] expects axes of whole numbers, got 0.5"),
            (
                lambda x: ops.l2_normalize(x, axis=None),
                ArgumentError,
                r"\[l2_normalize\] expects an axis of whole numbers",
            ),
            (
                lambda x: ops.sub(x.data > 0, x.data > 0),
                DTypeError,
                r"\[sub\] expects numbers, got bool \(2, 3\) and bool",
            ),
            (lambda x: -Tensor(x.data > 0), DTypeError, r"\[sub\] expects numbers, got bool"),
            (
                lambda x: ops.pad(x, 3),
                ShapeError,
                r"\[pad\] expects one pair of widths for each axis of \(2, 3\), got 3",
            ),
            (lambda x: ops.pad(x, [(0, 1)]), ShapeError, r"\[pad\] expects one pair of widths for each axis"),
            (lambda x: ops.pad(x, [(0, -1), (0, 0)]), ArgumentError, r"\[pad\] expects widths .* at least 0, got"),
            (lambda x: ops.concat([]), ArgumentError, r"\[concat\] expects at least one array"),
            (lambda x: ops.concat([x], axis=2), ShapeError, r"\[concat\] expects an axis of \(2, 3\)"),
            (lambda x: ops.concat([x, x[:, :2]]), ShapeError, r"\[concat\] .*\(2, 3\), \(2, 2\)"),
            (
                lambda x: ops.sum(x, axis=2),
                ShapeError,
                r"\[sum\] expects distinct axes of \(2, 3\), got axis 2",
            ),
            (lambda x: ops.sum(x, axis=(0, -2)), ShapeError, r"\[sum\]"),
            (lambda x: ops.mean(x[:0]), ShapeError, r"\[mean\] expects at least one element"),
            (lambda x: ops.power(x, "2"), ArgumentError, r"\[power\] expects a number"),
            (
                lambda x: ops.logistic_loss(x, [1]),
                ShapeError,
                r"\[logistic_loss\] expects labels of shape \(2, 3\)",
            ),
            (lambda x: ops.logistic_loss(x, ["a"]), DTypeError, r"\[logistic_loss\] expects labels 0 and 1"),
        ],
    )
    def test_errors(self, call: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            call(leaf(np.zeros((2, 3))))

    def test_methods_take_one_sequence_too(self) -> None:
        x = leaf(np.arange(6.0).reshape(2, 3))
        np.testing.assert_array_equal(x.transpose((1, 0)).data, x.data.T)
        np.testing.assert_array_equal(x.transpose([-1, 0]).data, x.data.T)
        assert x.reshape((3, 2)).shape == x.reshape([3, np.int64(2)]).shape == (3, 2)
        assert ops.sum(x, axis=np.int64(0)).shape == (3,)

    def test_concat_of_many_and_gradient_of_each(self) -> None:
        parts = [leaf(np.full((i, 2), float(i))) for i in range(4)]
        (ops.concat(parts) * np.arange(12).reshape(6, 2)).sum().backward()
        np.testing.assert_array_equal(parts[2].grad, [[2, 3], [4, 5]])
        assert parts[0].grad is not None
        assert parts[0].grad.shape == (0, 2)

    def test_sigmoid_softplus_and_loss_do_not_overflow(self) -> None:
        x = leaf([-1000.0, 0.0, 1000.0])
        np.testing.assert_allclose(ops.sigmoid(x).data, [0, 0.5, 1])
        np.testing.assert_allclose(ops.softplus(x).data, [0, np.log(2), 1000], rtol=1e-6)
        loss = ops.logistic_loss(x, np.array([0, 1, 1]))
        loss.backward()
        assert loss.item() == pytest.approx(np.log(2))
        np.testing.assert_allclose(x.grad, [0, -0.5, 0], atol=1e-7)

    def test_labels_may_be_a_tensor_a_list_or_booleans(self) -> None:
        z = np.array([0.5, -1.0])
        for labels in (tensor([1, 0]), [1, 0], np.array([True, False]), np.array([1, 5, 0])[::2]):
            assert ops.logistic_loss(z, labels) == pytest.approx(np.log1p(np.exp(-0.5)) + np.log1p(np.exp(-1.0)))


def test_results_are_not_recorded_for_arrays() -> None:
    y = ops.exp(nst.tensor([1.0]))
    assert not y.requires_grad
    assert y.is_leaf
