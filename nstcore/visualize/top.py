"""The few highest activations of every unit of a layer, kept while pictures stream by.

Memory depends on the units and on how many are kept, not on the number of pictures. Of each picture a unit's highest
place is compared with the lowest that it has; only units that beat it are looked at closer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.backend.arrays import to_host
from nstcore.visualize.receptive_field import ReceptiveField

Array = NDArray[Any]
COLUMNS = ("image", "row", "column", "top", "left")


class Best:
    """The `count` highest activations of each of `units` units, the highest first.

    value: (units, count) float32, −∞ where there is none yet. image, row, column, top, left: int32 of the same shape:
    number of the picture, place of the unit in its layer, first pixel of its receptive field. Equal values: the picture
    that came first wins, and in it the first place, row by row. An activation of exactly 0 is none: the unit is silent.
    """

    def __init__(self, units: int, count: int, several: bool = False) -> None:
        self.several = several  # whether one picture may give several places of a unit
        self.value = np.full((units, count), -np.inf, np.float32)
        self.places = np.full((len(COLUMNS), units, count), -1, np.int32)

    @classmethod
    def from_arrays(cls, value: Array, places: Array, several: bool) -> Best:
        """What `value` and `places` of another one hold."""
        best = cls(value.shape[0], value.shape[1], several)
        best.value[...], best.places[...] = value, places
        return best

    def added(self, activation: Array, image: int, field: ReceptiveField) -> Best:
        """These activations and those of one more picture (h, w, units); this one itself does not change."""
        if not activation.size:
            return self
        peaks, places = map(to_host, ops.channel_peaks(activation[None]))
        highest = peaks[0]
        units = np.nonzero((highest > self.value[:, -1]) & (highest != 0))[0]
        if not len(units):
            return self
        best = Best.from_arrays(self.value, self.places, self.several)
        if self.several:
            for unit in map(int, units):
                best._insert_places(unit, to_host(activation[:, :, unit]), image, field)
        else:
            row, column = np.divmod(places[0, units], activation.shape[1])
            best._insert(units, highest[units, None], image, row[:, None], column[:, None], field)
        return best

    def _insert_places(self, unit: int, plane: Array, image: int, field: ReceptiveField) -> None:
        """The highest places of one unit in one picture, each with a field of its own: half of it or more is new."""
        left = np.where((plane == 0) | np.isnan(plane), -np.inf, plane)
        reach = [
            -(-size // (2 * step)) if step else max(left.shape)
            for size, step in zip(field.size, field.stride, strict=True)
        ]
        found: list[tuple[float, int, int]] = []
        while len(found) < self.value.shape[1]:
            row, column = divmod(int(np.argmax(left)), left.shape[1])
            if not left[row, column] > self.value[unit, -1]:
                break
            found.append((float(left[row, column]), row, column))
            left[
                max(0, row - reach[0] + 1) : row + reach[0], max(0, column - reach[1] + 1) : column + reach[1]
            ] = -np.inf
        if found:
            value, row_of, column_of = (np.array([part]) for part in zip(*found, strict=True))
            self._insert(np.array([unit]), value, image, row_of, column_of, field)

    def _insert(self, units: Array, value: Array, image: int, row: Array, column: Array, field: ReceptiveField) -> None:
        """Put new entries, (units, n) each, where they belong; what was there before wins a tie."""
        top, left, _, _ = field.box(row, column)  # type: ignore[arg-type]  # arrays of them
        new = np.stack([np.full_like(row, image), row, column, top, left]).astype(np.int32)
        values, places = self.value[units], self.places[:, units]
        rank = np.arange(self.value.shape[1])
        for entry in range(value.shape[1]):
            at = np.count_nonzero(values >= value[:, entry, None], axis=1)[:, None]
            before = rank - (rank > at)
            values = np.where(rank == at, value[:, entry, None], np.take_along_axis(values, before, 1))
            places = np.where(rank == at, new[:, :, entry, None], np.take_along_axis(places, before[None], 2))
        self.value[units], self.places[:, units] = values, places

    def table(self, unit: int) -> list[Mapping[str, Any]]:
        """The unit's entries as plain values."""
        return [
            {"activation": float(value), **{name: int(n) for name, n in zip(COLUMNS, places, strict=True)}}
            for value, places in zip(self.value[unit], self.places[:, unit].T, strict=True)
            if places[0] >= 0
        ]
