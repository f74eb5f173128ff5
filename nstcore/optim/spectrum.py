"""The curvature of a loss over a picture, by frequency and colour: a better start for L-BFGS than one number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        import scipy.fft

        height, width = self.shape[:2]
        result = np.zeros(self.shape, vector.dtype)
        gains = self._gains.astype(vector.dtype)
        for axis, spectrum in enumerate(self._spectra(vector, 1.0)):
            spectrum *= gains[axis][self._band]
            plane = scipy.fft.irfft2(spectrum, (height, width), overwrite_x=True, workers=_threads())
            for channel in range(3):
                result[..., channel] += vector.dtype.type(AXES[axis, channel]) * plane
        return result.reshape(-1)

    def _powers(self, vector: Array, length: float) -> Array:
        """‖v‖² / length² in each band of each axis, in float64; they sum to 1."""
        count, pixels = self._gains.shape[1], self.shape[0] * self.shape[1]
        powers = np.zeros(self._gains.shape)
        for axis, spectrum in enumerate(self._spectra(vector, 1 / length)):
            power = self._times * (np.square(spectrum.real) + np.square(spectrum.imag))
            powers[axis] = np.bincount(self._band.ravel(), power.ravel(), count) / pixels
        return powers

    def _spectra(self, vector: Array, factor: float) -> Iterator[Array]:
        """The Fourier transform of `factor` · v along each axis of colour, one at a time."""
        import scipy.fft

        picture = vector.reshape(self.shape)
        for axis in AXES * factor:
            plane = vector.dtype.type(axis[0]) * picture[..., 0]
            for channel in (1, 2):
                plane += vector.dtype.type(axis[channel]) * picture[..., channel]
            yield scipy.fft.rfft2(plane, overwrite_x=True, workers=_threads())

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


def _threads() -> int:
    from nstcore.backend.cpu import get_num_threads

    return get_num_threads()
