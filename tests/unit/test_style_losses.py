"""The costs of style transfer against their formulas, written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import style
from nstcore.errors import DTypeError, ShapeError


def drawn(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def grams(a: np.ndarray) -> np.ndarray:
    return np.einsum("nhwi,nhwj->nij", a, a)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 4, 5, 3), (3, 2, 7, 4)])
def test_content_loss_is_half_the_squared_distance(shape: tuple[int, ...]) -> None:
    a, target = drawn(*shape), drawn(*shape, seed=1)
    expected = 0.5 * sum((x - y) ** 2 for x, y in zip(a.ravel(), target.ravel(), strict=True))
    assert float(style.content_loss(a, target)) == pytest.approx(expected, rel=1e-12)
    assert float(style.content_loss(a, a)) == 0


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 4, 5, 3), (3, 2, 7, 4)])
def test_style_loss_is_the_scaled_distance_of_gram_matrices(shape: tuple[int, ...]) -> None:
    n, h, w, c = shape
    a, target = drawn(*shape), grams(drawn(n, 6, 5, c, seed=1))
    expected = 0.0
    for image in range(n):
        for k in range(c):
            for m in range(c):
                g = sum(a[image, i, j, k] * a[image, i, j, m] for i in range(h) for j in range(w))
                expected += (g - target[image, k, m]) ** 2 / (2 * h * w * c) ** 2
    assert float(style.style_loss(a, target)) == pytest.approx(expected, rel=1e-12)
    assert float(style.style_loss(a, grams(a))) == pytest.approx(0, abs=1e-25)


def test_style_does_not_know_places() -> None:
    a = drawn(1, 4, 6, 3)
    shuffled = np.random.default_rng(2).permutation(a.reshape(24, 3)).reshape(1, 6, 4, 3)
    target = grams(drawn(1, 5, 5, 3, seed=3))
    assert float(style.style_loss(shuffled, target)) == pytest.approx(float(style.style_loss(a, target)), rel=1e-12)


def test_total_variation_counts_neighbours_down_and_across() -> None:
    image = np.array([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]]).reshape(1, 2, 3, 1)
    assert float(style.total_variation(image)) == (1 + 4) + (2**2 + 1 + 1)
    assert float(style.total_variation(np.concatenate([image, image]))) == 22
    assert float(style.total_variation(np.full((2, 3, 4, 3), 0.7))) == 0
    assert float(style.total_variation(np.ones((1, 1, 1, 3)))) == 0
    assert float(style.total_variation(image[:, :, :1])) == 4


@pytest.mark.parametrize(
    ("loss", "inputs"),
    [
        (style.content_loss, (drawn(2, 3, 4, 2), drawn(2, 3, 4, 2, seed=1))),
        (style.style_loss, (drawn(2, 3, 4, 3), grams(drawn(2, 5, 4, 3, seed=1)))),
        (style.total_variation, (drawn(2, 4, 5, 3),)),
    ],
)
def test_gradients(loss: Any, inputs: tuple[np.ndarray, ...]) -> None:
    assert nst.gradcheck(loss, *inputs).max_error < 1e-6


def test_arrays_give_arrays_and_tensors_give_tensors() -> None:
    a, b = drawn(1, 3, 4, 2), drawn(1, 3, 4, 2, seed=1)
    x = nst.tensor(a, requires_grad=True)
    for from_arrays, from_tensors in (
        (style.content_loss(a, b), style.content_loss(x, b)),
        (style.style_loss(a, grams(b)), style.style_loss(x, grams(b))),
        (style.total_variation(a), style.total_variation(x)),
    ):
        assert isinstance(from_arrays, np.ndarray)
        assert isinstance(from_tensors, nst.Tensor)
        assert from_tensors.requires_grad
        assert from_tensors.shape == from_arrays.shape == ()
        assert from_tensors.item() == float(from_arrays)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e7])
def test_float32_stays_finite_at_huge_activations(scale: float) -> None:
    """Activations of 1e7 over 96 x 96 pixels: the squares of their Gram matrices, 1e36, would overflow unscaled."""
    a = np.abs(drawn(1, 96, 96, 8, dtype="float32")) * np.float32(scale)
    target = np.zeros((1, 8, 8), np.float32)
    x = nst.tensor(a, requires_grad=True)
    loss = style.style_loss(x, target)
    loss.backward()
    a64 = a.astype(np.float64)
    assert loss.item() == pytest.approx(float(style.style_loss(a64, target.astype(np.float64))), rel=1e-4, abs=1e-37)
    assert x.grad is not None
    assert np.isfinite(x.grad).all()
    assert np.isfinite(float(style.content_loss(a, np.zeros_like(a))))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: style.content_loss(a, a[:, :2]), ShapeError, r"axis h must agree .*\(1, 3, 4, 2\), \(1, 2, 4, 2\)"),
        (lambda a: style.content_loss(a[0], a[0]), ShapeError, r"\(n, h, w, c\), got \(3, 4, 2\)"),
        (lambda a: style.content_loss(a, a.astype("float32")), DTypeError, "one type.* got float64, float32"),
        (lambda a: style.style_loss(a, np.zeros((1, 3, 3))), ShapeError, r"axis c must agree .*\(1, 3, 3\)"),
        (lambda a: style.style_loss(a[0], np.zeros((2, 2))), ShapeError, r"\[style_loss\] expects \(n, h, w, c\)"),
        (lambda a: style.style_loss(a, np.zeros((1, 2, 2), "float32")), DTypeError, "one type.* got float64, float32"),
        (lambda a: style.style_loss(np.zeros((1, 0, 4, 2)), np.zeros((1, 2, 2))), ShapeError, "at least one element"),
        (lambda a: style.total_variation(a[0]), ShapeError, r"\(n, h, w, c\), got \(3, 4, 2\)"),
        (lambda a: style.total_variation(None), ShapeError, r"\(n, h, w, c\), got \(\)"),
    ],
)
def test_arguments_that_do_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(drawn(1, 3, 4, 2))
