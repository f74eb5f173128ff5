"""The curvature of a loss over a picture, by frequency and colour: a better start for L-BFGS than one number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.backend.arrays import beside, on_device, to_host
from nstcore.errors import ArgumentError

Array = NDArray[Any]

# Rows: brightness, red against blue, green against both; orthonormal, nearly the principal axes of photographs' colours
# (Ohta, Kanade, Sakai, "Color information for region segmentation", 1980).
AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
BANDS_AN_OCTAVE = 2
MEMORY = 0.98  # what a pair still weighs after the next one
WIDEST = 1e4  # the most by which a band's gain differs from that of all bands


class SpectralScaling:
    """H₀ = Aᵀ F⁻¹ diag(h) F A: the inverse Hessian that L-BFGS starts from, learned from its own pairs (s, y).

    A turns red, green and blue into brightness and two differences of colours, F is the Fourier transform over the
    picture; h is one gain for each axis and half octave of spatial frequency, ‖s‖ / ‖y‖ within that band over the pairs
    so far (the geometric mean of the two step sizes of Barzilai and Borwein, "Two-point step size gradient methods",
    1988), times one number, so that ⟨s, y⟩ = ⟨y, H₀ y⟩ for the last pair.

    shape: the picture's, (height, width, 3). Temporary memory: about twice one of its channels.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
            raise ArgumentError(f"[SpectralScaling] expects the shape (height, width, 3) of a picture, got {shape}")
        self.shape = shape
        height, width = shape[:2]
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
        cycles = np.hypot(rows, columns) * max(height, width)  # in the longer side
        bands = BANDS_AN_OCTAVE * (1 + np.log2(np.maximum(cycles, 0.5)))
        self._band = bands.astype(np.uint8)  # 0: the mean; at most 2 · (1 + log2(2^16)) = 34
        self._times = np.full(len(columns), 2)  # a column of frequency f stands for −f as well, but for these:
        self._times[[0, -1] if width % 2 == 0 else 0] = 1
        count = int(self._band.max()) + 1
        self._steps, self._changes = np.zeros((3, count)), np.zeros((3, count))  # Σ ‖s‖², Σ ‖y‖² in each band
        self._gains = np.ones((3, count))
        self._copies: tuple[Array, Array, Array] | None = None  # bands, times and frequencies by band, on a device

    def observe(self, step: Array, change: Array, curvature: float) -> None:
        """Learn from a pair of flat vectors, s = `step`, y = `change`, with ⟨s, y⟩ = `curvature` > 0."""
        lengths = [float(np.sqrt(np.sum(np.square(v, dtype=np.float64)))) for v in (step, change)]
        steps, changes = (self._powers(v, length) for v, length in zip((step, change), lengths, strict=True))
        ratio = lengths[0] / lengths[1]  # the pairs weigh alike, however long they are
        self._steps = MEMORY * self._steps + ratio * steps
        self._changes = MEMORY * self._changes + changes / ratio
        overall = np.sqrt(self._steps.sum() / self._changes.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            gains = np.sqrt(self._steps / self._changes)
        gains = np.clip(np.where(np.isfinite(gains), gains, overall), overall / WIDEST, overall * WIDEST)
        self._gains = gains * (curvature / lengths[1] ** 2 / np.sum(gains * changes))

    def apply(self, vector: Array) -> Array:
        """H₀ v of a flat vector, as a new one."""
        result: Array = np.zeros_like(vector).reshape(self.shape)
        band = self._on_device(vector)[0] if on_device(vector) else self._band
        gains = beside(self._gains.astype(vector.dtype), vector)
        for axis, spectrum in enumerate(self._spectra(vector, 1.0)):
            spectrum *= gains[axis][band]
            plane = _inverse(spectrum, self.shape[:2])
            for channel in range(3):
                result[..., channel] += vector.dtype.type(AXES[axis, channel]) * plane
        return result.reshape(-1)

    def _powers(self, vector: Array, length: float) -> Array:
        """‖v‖² / length² in each band of each axis, in float64; they sum to 1."""
        count, pixels = self._gains.shape[1], self.shape[0] * self.shape[1]
        if on_device(vector):
            return self._powers_on_device(vector, length) / pixels
        powers = np.zeros(self._gains.shape)
        for axis, spectrum in enumerate(self._spectra(vector, 1 / length)):
            power = self._times * (np.square(spectrum.real) + np.square(spectrum.imag))
            powers[axis] = np.bincount(self._band.ravel(), power.ravel(), count) / pixels
        return powers

    def _powers_on_device(self, vector: Array, length: float) -> Array:
        """The sums that `_powers` takes, each over the frequencies of its band, moved together: in a fixed order."""
        _, times, by_band = self._on_device(vector)
        powers = [times * (np.square(a.real) + np.square(a.imag)) for a in self._spectra(vector, 1 / length)]
        sorted_powers = np.stack(powers).reshape(3, -1)[:, by_band]
        ends = np.cumsum(np.bincount(self._band.ravel(), minlength=self._gains.shape[1])).tolist()
        sums = [np.sum(sorted_powers[:, start:end], axis=1) for start, end in pairwise([0, *ends])]
        found: Array = to_host(np.stack(sums, axis=1))
        return found

    def _on_device(self, like: Array) -> tuple[Array, Array, Array]:
        """The bands, how often each column counts, and the frequencies in the order of their bands, beside `like`."""
        if self._copies is None or type(self._copies[0]) is not type(like):
            by_band = np.argsort(self._band, axis=None, kind="stable")
            arrays = self._band.astype(np.int32), self._times.astype(np.float64), by_band
            self._copies = beside(arrays[0], like), beside(arrays[1], like), beside(arrays[2], like)
        return self._copies

    def _spectra(self, vector: Array, factor: float) -> Iterator[Array]:
        """The Fourier transform of `factor` · v along each axis of colour, one at a time."""
        picture = vector.reshape(self.shape)
        for axis in AXES * factor:
            plane = vector.dtype.type(axis[0]) * picture[..., 0]
            for channel in (1, 2):
                plane += vector.dtype.type(axis[channel]) * picture[..., channel]
            yield _transform(plane)

    def state_dict(self) -> dict[str, Array]:
        """What has been learned."""
        return {"steps": self._steps.copy(), "changes": self._changes.copy(), "gains": self._gains.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; `ArgumentError`, and nothing changed, when it is of another picture."""
        found = {name: np.asarray(state.get(name)) for name in ("steps", "changes", "gains")}
        expected = self._gains.shape
        for name, a in found.items():
            if a.dtype.kind != "f" or a.shape != expected:
                got = f"{a.dtype} {a.shape}"
                raise ArgumentError(f"[SpectralScaling] expects a state with {name} of shape {expected}, got {got}")
        self._steps, self._changes, self._gains = (a.astype(np.float64) for a in found.values())


def _transform(plane: Array) -> Array:
    """The Fourier transform of a plane (h, w) of real numbers, (h, w // 2 + 1); the plane is used up."""
    if on_device(plane):
        return np.fft.rfft2(plane)
    import scipy.fft

    spectrum: Array = scipy.fft.rfft2(plane, overwrite_x=True, workers=_threads())
    return spectrum


def _inverse(spectrum: Array, shape: tuple[int, ...]) -> Array:
    """The plane of this shape that `_transform` makes `spectrum` of, which is used up."""
    if on_device(spectrum):
        return np.fft.irfft2(spectrum, shape)
    import scipy.fft

    plane: Array = scipy.fft.irfft2(spectrum, shape, overwrite_x=True, workers=_threads())
    return plane


def _threads() -> int:
    from nstcore.backend.cpu import get_num_threads

    return get_num_threads()
