"""Optimisers: their first steps by hand, L-BFGS against SciPy's, and runs that continue from a saved state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, rosen, rosen_der

import nstcore as nst
from nstcore import optim
from nstcore.errors import ArgumentError
from nstcore.optim.lbfgs import dot

MAKERS: dict[str, Callable[[list[nst.Tensor]], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, 1e-4, 0.9),
    "adam": lambda p: optim.Adam(p, 0.02),
    "lbfgs": lambda p: optim.LBFGS(p, history=5),
}


def parameter(values: Any, dtype: str = "float64") -> nst.Tensor:
    return nst.tensor(np.array(values, dtype), requires_grad=True)


def rosenbrock(parameters: list[nst.Tensor]) -> float:
    """Rosenbrock's function of all parameters together, with its gradient."""
    flat = np.concatenate([p.data.ravel() for p in parameters])
    gradient = rosen_der(flat)
    at = 0
    for p in parameters:
        p.grad = gradient[at : at + p.size].reshape(p.shape).astype(p.dtype)
        at += p.size
    return float(rosen(flat))


def quadratic(p: nst.Tensor, curvatures: np.ndarray, target: np.ndarray) -> float:
    """½ Σ c (p − t)², with its gradient."""
    p.grad = (curvatures * (p.data - target)).astype(p.dtype)
    return float(0.5 * np.sum(curvatures * (p.data - target).astype(np.float64) ** 2))


def test_two_steps_of_gradient_descent_by_hand() -> None:
    p = parameter([1.0, -2.0])
    optimizer = optim.SGD([p], learning_rate=0.1, momentum=0.5)

    def closure() -> float:
        loss = (p * p).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 5.0
    np.testing.assert_allclose(p.data, [0.8, -1.6], rtol=1e-15)  # v = g = (2, -4)
    assert optimizer.step(closure) == pytest.approx(3.2)
    np.testing.assert_allclose(p.data, [0.54, -1.08], rtol=1e-15)  # v = (1, -2) + (1.6, -3.2)


def test_two_steps_of_adam_by_hand() -> None:
    p = parameter([1.0])
    optimizer = optim.Adam([p], learning_rate=0.1, betas=(0.9, 0.99), eps=1e-3)

    def closure() -> float:
        loss = (p * p).sum()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    first = 1 - 0.1 * 2 / (2 + 1e-3)  # both corrected moments are those of the one gradient, 2
    np.testing.assert_allclose(p.data, [first], rtol=1e-14)
    optimizer.step(closure)
    g = 2 * first
    mean = (0.9 * 0.1 * 2 + 0.1 * g) / (1 - 0.9**2)
    square = (0.99 * 0.01 * 4 + 0.01 * g * g) / (1 - 0.99**2)
    np.testing.assert_allclose(p.data, [first - 0.1 * mean / (math.sqrt(square) + 1e-3)], rtol=1e-14)


@pytest.mark.parametrize("name", MAKERS)
def test_a_closure_need_not_clear_gradients_and_a_parameter_counts_once(name: str) -> None:
    def run(parameters: list[nst.Tensor], clear: bool) -> np.ndarray:
        p = parameters[0]
        optimizer = MAKERS[name](parameters)

        def closure() -> float:
            if clear:
                p.grad = None
            loss = ((p - 3.0) * (p - 3.0)).sum()
            loss.backward()
            return loss.item()

        for _ in range(4):
            optimizer.step(closure)
        return p.data

    once, twice = parameter([1.0, 2.0]), parameter([1.0, 2.0])
    assert np.array_equal(run([once], True), run([twice, twice], False))


@pytest.mark.parametrize("name", MAKERS)
def test_parameters_without_a_gradient_stay(name: str) -> None:
    used, unused, frozen = parameter([1.0]), parameter([5.0]), nst.tensor([7.0])
    optimizer = MAKERS[name]([used, unused, frozen])

    def closure() -> float:
        loss = (used * used).sum()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    assert used.data[0] != 1
    assert (unused.data[0], frozen.data[0]) == (5, 7)


def test_lbfgs_finds_rosenbrocks_minimum_as_scipy_does() -> None:
    start = np.tile([-1.2, 1.0], 5)
    parameters = [parameter(start[:4].reshape(2, 2)), parameter(start[4:])]
    optimizer = optim.LBFGS(parameters)
    evaluations, losses = 0, []

    def closure() -> float:
        nonlocal evaluations
        evaluations += 1
        return rosenbrock(parameters)

    while not optimizer.converged and len(losses) < 300:
        losses.append(optimizer.step(closure))
    oracle = minimize(
        rosen, start, jac=rosen_der, method="L-BFGS-B", options={"maxcor": 10, "ftol": 1e-15, "gtol": 1e-9}
    )
    found = np.concatenate([p.data.ravel() for p in parameters])
    assert optimizer.converged
    np.testing.assert_allclose(found, 1, atol=1e-7)
    np.testing.assert_allclose(found, oracle.x, atol=1e-6)
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert evaluations <= 3 * oracle.nfev  # a gross check that the history is put to use


def test_lbfgs_on_an_ill_conditioned_quadratic() -> None:
    rng = np.random.default_rng(0)
    curvatures, target = np.logspace(0, 3, 50), rng.standard_normal(50)
    p = parameter(np.zeros(50))
    optimizer = optim.LBFGS([p], history=20)
    for _ in range(250):
        optimizer.step(lambda: quadratic(p, curvatures, target))
        if optimizer.converged:
            break
    oracle = minimize(
        lambda x: 0.5 * np.sum(curvatures * (x - target) ** 2),
        np.zeros(50),
        jac=lambda x: curvatures * (x - target),
        method="L-BFGS-B",
        options={"maxcor": 20, "maxiter": 250, "ftol": 1e-16, "gtol": 1e-9},
    )
    assert quadratic(p, curvatures, target) <= max(10 * oracle.fun, 1e-12)
    np.testing.assert_allclose(p.data, target, atol=1e-5)


def test_lbfgs_in_float32_ends_where_float64_ends() -> None:
    rng = np.random.default_rng(1)
    a, y = rng.standard_normal((60, 20)), rng.random(60).round()
    ends = {}
    for dtype in ("float32", "float64"):
        p = parameter(np.zeros((20, 1)), dtype)
        features, labels = nst.tensor(a.astype(dtype)), nst.tensor(y.astype(dtype))
        optimizer = optim.LBFGS([p])

        def closure(p: nst.Tensor = p, x: nst.Tensor = features, labels: nst.Tensor = labels) -> float:
            loss = nst.ops.logistic_loss((x @ p).reshape(60), labels) + (p * p).sum()
            loss.backward()
            return loss.item()

        for _ in range(100):
            optimizer.step(closure)
        assert optimizer.converged
        assert p.dtype == dtype
        ends[dtype] = p.data
    np.testing.assert_allclose(ends["float32"], ends["float64"], atol=2e-3)


def test_lbfgs_does_not_depend_on_the_scale_of_the_loss() -> None:
    """Gradients whose squares would leave the range of float32 are no obstacle."""
    for factor in (1e-25, 1e25):
        p = parameter([4.0, -3.0], "float32")
        optimizer = optim.LBFGS([p])
        for _ in range(20):
            optimizer.step(lambda p=p, f=factor: quadratic(p, np.array([f, 3 * f]), np.array([1.0, 2.0])))
        np.testing.assert_allclose(p.data, [1, 2], atol=1e-4)


def test_lbfgs_survives_losses_that_are_not_finite() -> None:
    """−log x leaves its domain when the line search goes too far; the barrier's minimum is at x = 1."""
    for outside in (math.inf, math.nan):
        p = parameter([5.0, 0.1])
        optimizer = optim.LBFGS([p], first_step=30.0)
        refused = 0

        def closure(p: nst.Tensor = p, outside: float = outside) -> float:
            nonlocal refused
            if p.data.min() <= 0:
                refused += 1
                p.grad = np.full(p.shape, math.nan)
                return outside
            p.grad = 1 - 1 / p.data
            return float(np.sum(p.data - np.log(p.data)))

        for _ in range(60):
            assert math.isfinite(optimizer.step(closure))
            assert p.data.min() > 0
        assert refused > 0
        np.testing.assert_allclose(p.data, 1, atol=1e-6)


def test_lbfgs_refuses_a_finite_loss_with_a_gradient_that_is_not() -> None:
    p = parameter([3.0])

    def closure() -> float:
        p.grad = np.where(p.data < 1, math.nan, p.data)
        return float(0.5 * p.data[0] ** 2)

    optimizer = optim.LBFGS([p], first_step=2.5)
    for _ in range(30):
        optimizer.step(closure)
        assert p.data[0] >= 1


def test_lbfgs_starting_at_a_loss_that_is_not_finite_stays_there() -> None:
    p = parameter([1.0])

    def closure() -> float:
        p.grad = np.array([math.nan])
        return math.nan

    optimizer = optim.LBFGS([p])
    assert math.isnan(optimizer.step(closure))
    assert p.data[0] == 1


def test_lbfgs_says_when_it_is_done_and_then_evaluates_nothing() -> None:
    p = parameter([2.0, -1.0])
    optimizer = optim.LBFGS([p])
    calls = 0

    def closure() -> float:
        nonlocal calls
        calls += 1
        return quadratic(p, np.ones(2), np.array([2.0, -1.0]))

    assert optimizer.step(closure) == 0
    assert optimizer.converged
    assert calls == 1
    assert optimizer.step(closure) == 0
    assert calls == 1


def test_lbfgs_first_step_moves_no_parameter_further_than_it_is_told() -> None:
    p = parameter([0.0, 0.0])
    optimizer = optim.LBFGS([p], first_step=0.25)
    optimizer.step(lambda: quadratic(p, np.array([1.0, 2.0]), np.array([0.3, 0.3])))
    assert np.abs(p.data).max() == pytest.approx(0.25)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 6))
def test_lbfgs_never_raises_the_loss(seed: int, size: int, history: int) -> None:
    rng = np.random.default_rng(seed)
    parameters = [parameter(rng.uniform(-2, 2, size))]
    optimizer = optim.LBFGS(parameters, history=history, first_step=float(rng.uniform(0.01, 3)))
    losses = [optimizer.step(lambda: rosenbrock(parameters)) for _ in range(15)]
    losses.append(rosenbrock(parameters))
    assert all(b <= a for a, b in itertools.pairwise(losses))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("before", [0, 1, 7])
def test_a_run_continues_from_its_state_bit_for_bit(name: str, dtype: str, before: int) -> None:
    def fresh(values: list[np.ndarray]) -> tuple[list[nst.Tensor], optim.Optimizer]:
        parameters = [parameter(v, dtype) for v in values]
        return parameters, MAKERS[name](parameters)

    start = [np.full((2, 3), -0.5), np.linspace(0.5, 1.5, 4)]
    parameters, optimizer = fresh(start)
    for _ in range(before):
        optimizer.step(lambda: rosenbrock(parameters))
    state, values = optimizer.state_dict(), [p.data.copy() for p in parameters]
    expected = [optimizer.step(lambda: rosenbrock(parameters)) for _ in range(6)]
    others, other = fresh(values)
    other.step(lambda: rosenbrock(others))  # a state of its own, to be replaced
    for p, v in zip(others, values, strict=True):
        p.data[...] = v
    other.load_state_dict(state)
    assert [other.step(lambda: rosenbrock(others)) for _ in range(6)] == expected
    assert all(np.array_equal(p.data, q.data) for p, q in zip(parameters, others, strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_is_a_copy(name: str) -> None:
    parameters = [parameter([-1.0, 2.0, 0.5])]
    optimizer = MAKERS[name](parameters)
    for _ in range(3):
        optimizer.step(lambda: rosenbrock(parameters))
    state = optimizer.state_dict()
    kept = {key: np.copy(value) for key, value in state.items()}
    optimizer.step(lambda: rosenbrock(parameters))
    assert all(np.array_equal(state[key], value) for key, value in kept.items())


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_of_other_parameters_is_refused_and_nothing_changes(name: str) -> None:
    parameters = [parameter([-1.0, 2.0, 0.5])]
    optimizer = MAKERS[name](parameters)
    for _ in range(3):
        optimizer.step(lambda: rosenbrock(parameters))
    state = optimizer.state_dict()
    array = next(key for key, value in state.items() if np.ndim(value))
    for bad in (np.zeros(4), np.array(["x", "y", "z"]), None):
        broken = {**state, array: bad}
        if bad is None:
            del broken[array]
        with pytest.raises(ArgumentError, match=rf"expects a state with {array} of shape \(3,\), got"):
            optimizer.load_state_dict(broken)
    after = optimizer.state_dict()
    assert all(np.array_equal(state[key], after[key]) for key in state)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 2**32 - 1))
def test_dot_is_exact_for_any_length(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    exact = math.fsum((a.astype(np.float64) * b).tolist())
    assert dot(a, b) == pytest.approx(exact, abs=1e-10)
    assert dot(a, b) == dot(a.copy(), b.copy())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: optim.SGD([], 0.1), r"\[SGD\] expects at least one parameter with requires_grad=True"),
        (lambda p: optim.LBFGS([nst.tensor([1.0])]), r"\[LBFGS\] expects at least one parameter"),
        (lambda p: optim.SGD([p], 0), "learning_rate above 0, got 0"),
        (lambda p: optim.SGD([p], math.nan), "learning_rate above 0, got nan"),
        (lambda p: optim.SGD([p], "fast"), "learning_rate above 0, got 'fast'"),
        (lambda p: optim.SGD([p], 0.1, momentum=1.0), r"momentum in \[0, 1\), got 1"),
        (lambda p: optim.Adam([p], betas=(-0.1, 0.9)), r"betas\[0\] in \[0, 1\), got -0.1"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), r"betas\[1\]"),
        (lambda p: optim.Adam([p], eps=0), "eps above 0, got 0"),
        (lambda p: optim.LBFGS([p], history=0), "history as a whole number of at least 1, got 0"),
        (lambda p: optim.LBFGS([p], history=2.5), "history as a whole number of at least 1, got 2.5"),
        (lambda p: optim.LBFGS([p], first_step=math.inf), "first_step above 0, got inf"),
        (lambda p: optim.LBFGS([p, parameter([1.0], "float32")]), "parameters of one type, got float32, float64"),
    ],
)
def test_bad_arguments(make: Callable[[nst.Tensor], object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make(parameter([1.0]))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_parameter_that_cannot_be_changed_is_refused(kind: str) -> None:
    """Such as one over an array that a file gave; also where it became one later, and before anything is changed."""
    free, fixed = parameter([1.0, 2.0]), parameter([[3.0]])
    made = MAKERS[kind]([free, fixed])
    fixed.data.flags.writeable = False
    words = r"expects parameters that can be changed, got a read-only array for parameter 1, float64 \(1, 1\)"
    with pytest.raises(ArgumentError, match=words):
        made.step(lambda: rosenbrock([free, fixed]))
    with pytest.raises(ArgumentError, match=words):
        MAKERS[kind]([free, fixed])
    assert free.data.tolist() == [1.0, 2.0]
