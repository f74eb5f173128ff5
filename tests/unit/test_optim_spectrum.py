"""The start of L-BFGS's recursion by frequency and colour, against Fourier sums written out and known Hessians."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nstcore as nst
from nstcore import optim
from nstcore.backend.cpu import get_num_threads, set_num_threads
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError
from nstcore.optim.spectrum import AXES
from nstcore.style.objective import Objective
from nstcore.style.settings import Settings

PICTURES = ("chelsea", "rocket")
SHAPES = [(8, 8, 3), (9, 6, 3), (5, 12, 3), (1, 7, 3), (7, 1, 3), (16, 15, 3), (1, 1, 3)]


def taught(shape: tuple[int, ...], seed: int = 0, dtype: str = "float64") -> optim.SpectralScaling:
    """A scaling that has seen three random pairs of positive curvature."""
    rng, scaling = np.random.default_rng(seed), optim.SpectralScaling(shape)
    for _ in range(3):
        s, y = (rng.standard_normal(np.prod(shape)).astype(dtype) for _ in range(2))
        y += s * np.sign(s @ y) if abs(s @ y) > 1e-3 else s
        s *= np.sign(s @ y)
        scaling.observe(s, y, float(s @ y))
    return scaling


def matrix(scaling: optim.SpectralScaling) -> np.ndarray:
    """H₀ as a matrix, a column for each pixel's channel."""
    size = int(np.prod(scaling.shape))
    return np.stack([scaling.apply(row) for row in np.eye(size)], axis=1)


def waves(shape: tuple[int, ...], row: int, column: int, axis: int) -> np.ndarray:
    """A plane wave of unit amplitude along one axis of colour."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    phase = 2 * np.pi * (row * y / shape[0] + column * x / shape[1])
    return (np.cos(phase)[..., None] * AXES[axis]).ravel()


def test_the_axes_of_colour_are_orthonormal() -> None:
    np.testing.assert_allclose(AXES @ AXES.T, np.eye(3), atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_symmetric_and_positive_definite(shape: tuple[int, ...]) -> None:
    h = matrix(taught(shape))
    np.testing.assert_allclose(h, h.T, atol=1e-12 * np.abs(h).max())
    assert np.linalg.eigvalsh(h).min() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_waves_of_one_frequency_and_colour_are_its_eigenvectors(shape: tuple[int, ...]) -> None:
    """Which pins the Fourier transform and the axes: H₀ v = λ v, and λ does not change with the wave's direction."""
    scaling = taught(shape)
    for row, column, axis in itertools.product(range(shape[0]), range(shape[1]), range(3)):
        wave = waves(shape, row, column, axis)
        found = scaling.apply(wave)
        gain = float(found @ wave / (wave @ wave))
        np.testing.assert_allclose(found, gain * wave, atol=1e-12 * abs(gain) * np.abs(wave).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_last_pair_has_the_scale_that_the_secant_equation_asks_for(shape: tuple[int, ...]) -> None:
    rng, scaling = np.random.default_rng(1), optim.SpectralScaling(shape)
    for size in (1.0, 1e-6, 1e6):
        s = rng.standard_normal(np.prod(shape)) * size
        y = 3 * s + rng.standard_normal(s.shape) * size
        scaling.observe(s, y, float(s @ y))
        assert y @ scaling.apply(y) == pytest.approx(s @ y, rel=1e-10)


def test_it_learns_a_hessian_that_is_diagonal_in_its_basis() -> None:
    """Pairs y = B s with B growing with frequency, eightfold for colour: the gains become 1 / B, to a band's width."""
    shape = (64, 64, 3)
    scaling, rng = optim.SpectralScaling(shape), np.random.default_rng(2)
    rows, columns = np.fft.fftfreq(64)[:, None] * 64, np.fft.fftfreq(64) * 64
    curvature = 1 + np.hypot(rows, columns)[..., None] * [1, 8, 8]
    for _ in range(30):
        s = rng.standard_normal(shape) @ AXES.T
        y = np.fft.ifft2(np.fft.fft2(s, axes=(0, 1)) * curvature, axes=(0, 1)).real
        s, y = (s @ AXES).ravel(), (y @ AXES).ravel()
        scaling.observe(s, y, float(s @ y))
    for row, column, axis in ((0, 1, 0), (3, 4, 0), (0, 20, 0), (3, 4, 1), (16, 12, 2)):
        wave = waves(shape, row, column, axis)
        gain = scaling.apply(wave) @ wave / (wave @ wave)
        assert gain * curvature[row, column, axis] == pytest.approx(1, rel=0.35)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_a_band_that_was_never_seen_takes_the_gain_of_all(height: int, width: int, seed: int) -> None:
    """A pair of constant pictures says nothing about any other band; nothing becomes zero, infinite or NaN."""
    scaling = optim.SpectralScaling((height, width, 3))
    s = np.ones(height * width * 3, np.float32)
    scaling.observe(s, 2 * s, float(2 * s.size))
    v = np.random.default_rng(seed).standard_normal(s.shape).astype(np.float32)
    np.testing.assert_allclose(scaling.apply(v), 0.5 * v, rtol=1e-4, atol=1e-5)


def test_float32_keeps_its_type_and_agrees_with_float64() -> None:
    shape = (24, 31, 3)
    single, double = taught(shape, dtype="float32"), taught(shape)
    v = np.random.default_rng(3).standard_normal(np.prod(shape))
    found = single.apply(v.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, double.apply(v), atol=1e-5 * np.abs(double.apply(v)).max())


@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_the_scale_of_the_loss_is_no_obstacle_in_float32(factor: float) -> None:
    rng, scaling = np.random.default_rng(4), optim.SpectralScaling((6, 5, 3))
    s = rng.standard_normal(90).astype(np.float32)
    y = (s * np.float32(factor)).astype(np.float32)
    scaling.observe(s, y, float(s.astype(float) @ y.astype(float)))
    np.testing.assert_allclose(scaling.apply(y), s, rtol=1e-3, atol=1e-4)


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    before, found = get_num_threads(), []
    v = np.random.default_rng(5).standard_normal(70 * 66 * 3).astype(np.float32)
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            found.append(taught((70, 66, 3), dtype="float32").apply(v))
    finally:
        set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def run(pixels: nst.Tensor, optimizer: optim.LBFGS, objective: Objective, steps: int) -> list[float]:
    return [optimizer.step(lambda: objective.evaluate(pixels).total) for _ in range(steps)]


def test_style_transfer_comes_further_with_it() -> None:
    """On photographs, 30 evaluations with it lower the loss more than 40 from a multiple of the identity."""
    photo, painting = (nst.images.resize_to(nst.images.load(picture_path(name)), 96, 80) for name in PICTURES)
    objective, ends = Objective(nst.models.vgg16(), photo, [painting], Settings()), []
    for scaling, evaluations in ((None, 40), (optim.SpectralScaling((96, 80, 3)), 30)):
        pixels = nst.tensor(photo[None], requires_grad=True)
        optimizer, count, loss = optim.LBFGS([pixels], scaling=scaling), [0], np.inf

        def closure(pixels: nst.Tensor = pixels, count: list[int] = count) -> float:
            count[0] += 1
            return objective.evaluate(pixels).total

        while count[0] < evaluations:
            loss = optimizer.step(closure)
        ends.append(loss)
    assert ends[1] < ends[0]


@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_run_continues_from_its_state_bit_for_bit(before: int) -> None:
    rng = np.random.default_rng(7)
    photo, painting = (rng.random((20, 26, 3), np.float32) for _ in range(2))
    objective = Objective(nst.models.vgg16(), photo, [painting], Settings())

    def fresh(picture: np.ndarray) -> tuple[nst.Tensor, optim.LBFGS]:
        pixels = nst.tensor(picture[None], requires_grad=True)
        return pixels, optim.LBFGS([pixels], history=3, scaling=optim.SpectralScaling(photo.shape))

    pixels, optimizer = fresh(photo)
    run(pixels, optimizer, objective, before)
    state, picture = optimizer.state_dict(), pixels.data[0].copy()
    expected = run(pixels, optimizer, objective, 4)
    others, other = fresh(picture)
    run(others, other, objective, 2)  # a state of its own, to be replaced
    others.data[...] = picture
    other.load_state_dict(state)
    assert run(others, other, objective, 4) == expected
    assert np.array_equal(pixels.data, others.data)


def test_what_it_cannot_work_with_is_refused() -> None:
    for shape in ((4, 4), (1, 4, 4, 3), (4, 4, 1), (0, 4, 3)):
        with pytest.raises(ArgumentError, match=r"\[SpectralScaling\] expects the shape \(height, width, 3\)"):
            optim.SpectralScaling(shape)
    pixels = nst.tensor(np.zeros((1, 4, 4, 3)), requires_grad=True)
    with pytest.raises(ArgumentError, match=r"expects a scaling of 48 parameters, got one of \(4, 5, 3\)"):
        optim.LBFGS([pixels], scaling=optim.SpectralScaling((4, 5, 3)))
    scaling = optim.SpectralScaling((32, 32, 3))
    state = taught((4, 4, 3)).state_dict()
    before = scaling.state_dict()
    with pytest.raises(ArgumentError, match=r"expects a state with steps of shape \(3, 12\), got float64 \(3, 6\)"):
        scaling.load_state_dict(state)
    assert all(np.array_equal(a, before[key]) for key, a in scaling.state_dict().items())
