"""`gradcheck`: finds what is wrong and says where, and is not misled by kinks, types or randomness."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import Tensor, gradcheck, ops, tensor
from nstcore.autograd.engine import Context, apply
from nstcore.errors import ArgumentError, DTypeError, GradientError
from nstcore.ops import Kernel, Op

X = np.array([0.3, -1.2, 2.0])


def op_of(forward: Any, derivative: Any) -> Any:
    """A function of one array whose derivative is claimed to be `derivative`."""

    def run(ctx: Context, x: np.ndarray) -> np.ndarray:
        ctx.save(x)
        return np.asarray(forward(x))

    def back(ctx: Context, grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
        (x,) = ctx.saved()
        return (grad * derivative(x),)

    op = Op("users_own", "... -> ...", lambda x: x, Kernel(run, back), ())
    return lambda x: apply(op, (x,))


class TestPasses:
    def test_a_user_s_own_function(self) -> None:
        report = gradcheck(op_of(np.sin, np.cos), X)
        assert report.max_error < 1e-8
        assert report.kinks == 0

    def test_a_formula_of_several_inputs(self) -> None:
        report = gradcheck(lambda a, b: (a @ b).sum() / (1 + ops.exp(-a.mean())), np.eye(3), np.ones((3, 2)))
        assert report.inputs == ((3, 3), (3, 2))
        assert report.max_error < 1e-6

    def test_report_prints(self) -> None:
        text = str(gradcheck(ops.exp, X))
        assert re.fullmatch(
            r"gradcheck passed: inputs \(3,\), 4 directions, largest relative error \d\.\de-\d\d \(allowed 1e-06\)",
            text,
        )

    def test_float32_inputs_are_computed_in_float64(self) -> None:
        seen = []

        def fn(x: Tensor) -> Tensor:
            seen.append(x.dtype)
            return x * x

        assert gradcheck(fn, X.astype(np.float32)).max_error < 1e-8
        assert set(seen) == {np.dtype(np.float64)}

    def test_inputs_are_left_alone(self) -> None:
        x = tensor(X, requires_grad=True)
        gradcheck(ops.exp, x)
        np.testing.assert_array_equal(x.data, X)
        assert x.grad is None

    def test_empty_and_scalar_inputs(self) -> None:
        assert gradcheck(ops.exp, np.zeros((0, 3))).max_error == 0
        assert gradcheck(ops.exp, 2.0).max_error < 1e-8

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
    def test_at_any_scale(self, scale: float) -> None:
        gradcheck(lambda x: (x / scale) ** 3, scale * X)

    def test_inputs_of_unequal_scale(self) -> None:
        gradcheck(lambda a, b: (a / 1e5) ** 3 * (b / 1e-3) ** 3, 1e5 * X, 1e-3 * X)

    def test_a_large_input_does_not_hide_a_small_one(self) -> None:
        with pytest.raises(GradientError, match="worst element: input 1"):
            gradcheck(lambda a, b: (a / 1e5) ** 2 + (b.detach() / 1e-3) ** 2, 1e5 * X, 1e-3 * X)

    def test_elements_of_unequal_scale(self) -> None:
        """The step of the largest would carry the others out of the function's domain."""
        gradcheck(ops.log, np.array([1e3, 1e-3]))
        gradcheck(ops.log, np.array([1e-6, 1.0]))
        gradcheck(ops.sqrt, np.array([1e3, 1e-3]))
        gradcheck(lambda x: 1 / x, np.array([-1e2, 1e-2, 3.0]))

    def test_a_large_element_does_not_hide_a_small_one(self) -> None:
        with pytest.raises(GradientError, match="worst element: input 0"):
            gradcheck(
                lambda x: (x * np.array([1.0, 0.0, 0.0])).detach() + x * np.array([0.0, 1.0, 1.0]),
                np.array([1e-2, 1.0, 0.0]),
            )

    def test_the_measured_error_is_reported(self) -> None:
        report = gradcheck(op_of(np.exp, lambda x: np.exp(x) * (1 + 3e-7)), X)
        assert report.max_error == pytest.approx(3e-7, rel=0.5)
        assert gradcheck(ops.exp, X).max_error > 0

    def test_an_error_of_rounding_is_allowed_and_said(self) -> None:
        """1e-16 of 1e8 in steps of 1e-5 is 1e-3: what is measured must not be blamed on the gradient, nor hidden."""
        report = gradcheck(lambda x: x.sum() + 1e8, X)
        assert report.max_error > report.tolerance
        assert "(allowed 1e-06 and the rounding of the result)" in str(report)

    def test_an_unused_input_has_gradient_zero(self) -> None:
        gradcheck(lambda a, b: a * 2, X, X)

    def test_the_same_seed_gives_the_same_report(self) -> None:
        assert gradcheck(ops.sigmoid, X, seed=3) == gradcheck(ops.sigmoid, X, seed=3)


class TestKinks:
    def test_relu_at_exactly_zero(self) -> None:
        report = gradcheck(ops.relu, np.array([0.0, 1.0, -1.0]))
        assert report.kinks >= 1
        assert "checked beside" in str(report)
        assert "kink" in str(report)

    @pytest.mark.parametrize("beside", [1e-12, 1e-9, 3e-9, 1e-8, 1e-6])
    def test_relu_just_beside_zero(self, beside: float) -> None:
        gradcheck(ops.relu, np.array([beside, 1.0, -1.0]))
        gradcheck(ops.relu, np.array([-beside, 1.0, -1.0]))

    def test_absolute_at_exactly_zero(self) -> None:
        """The central difference is 0 there, and so is the derivative that we choose."""
        gradcheck(ops.absolute, np.zeros(4))

    def test_tied_maximum(self) -> None:
        report = gradcheck(ops.maximum, np.array([1.0, 2.0]), np.array([1.0, 0.0]))
        assert report.kinks >= 1

    def test_a_wrong_gradient_at_a_kink_is_still_found(self) -> None:
        wrong = op_of(lambda x: np.maximum(x, 0), lambda x: 1.1 * (x > 0))
        with pytest.raises(GradientError, match="worst element"):
            gradcheck(wrong, np.array([0.0, 1.0, 2.0]))

    def test_a_jump_everywhere_is_not_a_gradient(self) -> None:
        with pytest.raises(GradientError):
            gradcheck(op_of(lambda x: np.floor(1e7 * x), np.zeros_like), X)


class TestFailures:
    def test_names_the_element_and_both_values(self) -> None:
        def derivative(x: np.ndarray) -> np.ndarray:
            d = 2 * x
            d[1, 2] = -5
            return d

        square = op_of(np.square, derivative)
        a, b = np.ones((2, 2)), np.full((2, 3), 3.0)
        with pytest.raises(GradientError) as caught:
            gradcheck(lambda a, b: a.sum() + (square(b) * np.ones((2, 3))).sum(), a, b)
        message = str(caught.value)
        assert "[gradcheck] relative error" in message
        assert "worst element: input 1 at (1, 2): gradient " in message
        found = re.search(r"gradient (\S+), finite difference (\S+)$", message)
        assert found
        # The result is multiplied by a random weight; what is left is the ratio of -5 to 2 * 3.
        assert float(found[1]) / float(found[2]) == pytest.approx(-5 / 6, rel=1e-5)

    @pytest.mark.parametrize("error", [1e-4, -1e-4, 1.0])
    def test_a_slightly_wrong_gradient(self, error: float) -> None:
        with pytest.raises(GradientError):
            gradcheck(op_of(np.exp, lambda x: np.exp(x) * (1 + error)), X)

    def test_one_wrong_element_of_many(self) -> None:
        def derivative(x: np.ndarray) -> np.ndarray:
            d = 2 * x
            d[700] += 1
            return d

        with pytest.raises(GradientError, match=r"input 0 at \(700,\)"):
            gradcheck(op_of(np.square, derivative), np.linspace(1, 2, 1000))

    def test_a_missing_gradient(self) -> None:
        with pytest.raises(GradientError, match=r"worst element.*gradient 0, finite difference"):
            gradcheck(lambda x: x.detach() * 2, X)
        with pytest.raises(GradientError, match="worst element"):
            gradcheck(lambda a, b: a * b.detach(), X, X)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_gradient_that_is_not_finite(self, bad: float) -> None:
        def derivative(x: np.ndarray) -> np.ndarray:
            d = 2 * x
            d[2] = bad
            return d

        with pytest.raises(GradientError, match=r"input 0 at \(2,\)"):
            gradcheck(op_of(np.square, derivative), X)

    @pytest.mark.parametrize(
        ("fn", "x"),
        [
            (lambda x: ops.sqrt(x.detach()) * x, [0.0, 1.0, 4.0]),
            (lambda x: ops.log(x) * x.detach(), [-1.0, 2.0]),
            (ops.log, [-1.0, 2.0]),
            (ops.exp, [1000.0]),
        ],
    )
    def test_a_function_that_is_not_finite_is_no_success(self, fn: Any, x: list[float]) -> None:
        rule = r"^\[gradcheck\] expects a function that is finite at and beside the inputs, got (nan|-?inf)$"
        with pytest.raises(GradientError, match=rule):
            gradcheck(fn, np.array(x))

    def test_a_random_function(self) -> None:
        rng = np.random.default_rng(0)
        with pytest.raises(GradientError, match=r"^\[gradcheck\] the function is random"):
            gradcheck(lambda x: x * rng.standard_normal(3), X)

    def test_swapped_operands(self) -> None:
        def back(ctx: Context, grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
            a, b = ctx.saved()
            return grad * a, grad * b  # the right ones are grad * b, grad * a

        def run(ctx: Context, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            ctx.save(a, b)
            return a * b

        op = Op("swapped", "..., ... -> ...", lambda a, b: a, Kernel(run, back), ())
        with pytest.raises(GradientError):
            gradcheck(lambda a, b: apply(op, (a, b)), X, X + 1)


class TestArguments:
    def test_integers_have_no_gradient(self) -> None:
        with pytest.raises(DTypeError, match=r"^\[gradcheck\] expects float inputs, got int64; bind"):
            gradcheck(ops.exp, np.array([1, 2], np.int64))

    def test_inputs_must_be_finite(self) -> None:
        with pytest.raises(ArgumentError, match=r"^\[gradcheck\] expects finite inputs"):
            gradcheck(ops.exp, np.array([1.0, np.nan]))

    def test_no_inputs_and_no_directions(self) -> None:
        with pytest.raises(ArgumentError, match=r"^\[gradcheck\] expects inputs and directions"):
            gradcheck(lambda: tensor(1.0))
        with pytest.raises(ArgumentError, match="directions"):
            gradcheck(ops.exp, X, directions=0)

    @pytest.mark.parametrize(
        ("fn", "what"),
        [(lambda x: x.data, "must return a Tensor, got ndarray"), (lambda x: tensor([1, 2]), "floats")],
    )
    def test_result_must_be_a_float_tensor(self, fn: Any, what: str) -> None:
        with pytest.raises(ArgumentError, match=what):
            gradcheck(fn, X)

    def test_it_is_the_public_one(self) -> None:
        assert nst.gradcheck is gradcheck
