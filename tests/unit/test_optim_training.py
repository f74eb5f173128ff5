"""Weight decay, Nesterov's step, schedules and clipped gradients, by hand; states that go on bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import optim
from nstcore.errors import ArgumentError


def parameter(values: Any) -> nst.Tensor:
    return nst.tensor(np.array(values, np.float64), requires_grad=True)


def step(optimizer: optim.Optimizer, p: nst.Tensor, gradient: Any) -> None:
    def closure() -> float:
        p.grad = np.array(gradient, p.dtype)
        return 0.0

    optimizer.step(closure)


def test_gradient_descent_with_weight_decay_and_nesterov() -> None:
    p = parameter([[1.0, -2.0]])
    optimizer = optim.SGD([p], 0.1, 0.5, weight_decay=0.1, nesterov=True)
    v, theta = np.zeros((1, 2)), p.data.copy()
    for gradient in ([[2.0, -4.0]], [[1.0, 0.5]], [[-1.0, 0.0]]):
        step(optimizer, p, gradient)
        g = np.array(gradient) + 0.1 * theta
        v = 0.5 * v + g
        theta = theta - 0.1 * (g + 0.5 * v)
        np.testing.assert_allclose(p.data, theta, rtol=1e-14)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_and_adamw_differ_in_where_the_weights_decay(decoupled: bool) -> None:
    p = parameter([[1.0, -2.0]])
    kind = optim.AdamW if decoupled else optim.Adam
    optimizer = kind([p], 0.1, (0.9, 0.99), 1e-8, weight_decay=0.2)
    m, v, theta = np.zeros((1, 2)), np.zeros((1, 2)), p.data.copy()
    for t, gradient in enumerate(([[2.0, -4.0]], [[1.0, 0.5]], [[-1.0, 0.0]]), start=1):
        step(optimizer, p, gradient)
        g = np.array(gradient) + (0 if decoupled else 0.2 * theta)
        theta = theta * (1 - 0.1 * 0.2) if decoupled else theta
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        theta = theta - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        np.testing.assert_allclose(p.data, theta, rtol=1e-9)


def test_biases_do_not_decay_with_adamw() -> None:
    p = parameter([1.0, 2.0])
    step(optim.AdamW([p], 0.1, weight_decay=0.5), p, [0.0, 0.0])
    np.testing.assert_array_equal(p.data, [1.0, 2.0])


@pytest.mark.parametrize("element", ["float32", "float64"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.05, 0.9, weight_decay=0.01, nesterov=True),
        lambda p: optim.SGD(p, 0.05, 0.0),
        lambda p: optim.AdamW(p, 0.05, weight_decay=0.1),
        lambda p: optim.Adam(p, 0.05, weight_decay=0.1),
    ],
)
def test_a_step_is_the_same_wherever_the_parameter_lies(make: Any, element: str) -> None:
    """Several chunks, by one and by three threads; a transposed parameter, one of the other byte order."""
    rng = np.random.default_rng(1)
    values, gradients = rng.standard_normal((2, 331, 217)).astype(element), rng.standard_normal((3, 331, 217))
    found = []
    for threads, placed in (
        (1, values[0].copy()),
        (3, values[0].copy()),
        (2, np.asfortranarray(values[0])),
        (2, values[0].astype(np.dtype(element).newbyteorder(">"))),
    ):
        nst.set_num_threads(threads)
        p = nst.Tensor(placed, requires_grad=True)
        optimizer = make([p])
        for g in gradients:
            step(optimizer, p, g)
        assert p.data is placed
        assert not np.array_equal(p.data, values[0])
        found.append(p.data)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.05, 0.9, weight_decay=0.01, nesterov=True),
        lambda p: optim.AdamW(p, 0.05),
        lambda p: optim.Adam(p, 0.05, weight_decay=0.1),
    ],
)
def test_a_run_goes_on_bit_for_bit(make: Any) -> None:
    gradients = np.random.default_rng(0).standard_normal((6, 3, 2))
    whole = parameter(np.ones((3, 2)))
    optimizer = make([whole])
    for g in gradients:
        step(optimizer, whole, g)
    part = parameter(np.ones((3, 2)))
    first = make([part])
    for g in gradients[:3]:
        step(first, part, g)
    second = make([part])
    second.load_state_dict(first.state_dict())
    for g in gradients[3:]:
        step(second, part, g)
    np.testing.assert_array_equal(part.data, whole.data)


def test_cosine_rises_in_a_line_and_falls_to_its_end() -> None:
    rates = [optim.cosine_schedule(0.4, i, 100, warm_up=10, least=0.1) for i in range(120)]
    np.testing.assert_allclose(rates[:10], 0.4 * np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(0.4)
    assert rates[55] == pytest.approx(0.4 * (0.1 + 0.9 * 0.5))
    assert rates[100] == rates[119] == pytest.approx(0.04)
    assert np.all(np.diff(rates[10:]) <= 0)


def test_steps_divide_the_rate() -> None:
    assert [optim.step_schedule(1.0, i, [2, 3], 0.1) for i in (0, 1, 2, 3, 9)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])


def test_gradients_are_scaled_together() -> None:
    a, b = parameter([3.0, 0.0]), parameter([[0.0], [1.0]])
    a.grad, b.grad = np.array([3.0, 0.0]), np.array([[0.0], [4.0]])
    assert optim.clip_gradients([a, b], 1.0) == 5
    np.testing.assert_allclose(a.grad, [0.6, 0])
    np.testing.assert_allclose(b.grad, [[0], [0.8]])
    assert optim.clip_gradients([a, b], 10.0) == pytest.approx(1)
    np.testing.assert_allclose(a.grad, [0.6, 0])
    a.grad[0] = np.nan
    assert math.isnan(optim.clip_gradients([a, b], 0.1))
    np.testing.assert_allclose(b.grad, [[0], [0.8]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: optim.SGD(p, 0.1, weight_decay=-1), r"\[SGD\] expects weight_decay of at least 0"),
        (lambda p: optim.AdamW(p, weight_decay=np.nan), r"\[Adam\] expects weight_decay of at least 0"),
        (lambda p: optim.clip_gradients(p, 0), r"\[clip_gradients\] expects largest above 0"),
        (
            lambda p: optim.cosine_schedule(1.0, 0, 5, 5),
            r"\[cosine_schedule\] expects 0 <= warm_up < steps, got 5 and 5",
        ),
        (lambda p: optim.step_schedule(0.0, 0, [1]), r"\[step_schedule\] expects rate above 0"),
    ],
)
def test_refuses(call: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        call([parameter([1.0])])
