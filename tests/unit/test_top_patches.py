"""The nine patches: against a sort of everything, their crops exact to the pixel, and the index that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import models, nn
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, DTypeError, ImageError
from nstcore.images import load
from nstcore.visualize import index_patches, top_patches
from nstcore.visualize.network import activations
from nstcore.visualize.patches import hatched
from nstcore.visualize.pictures import pictures
from nstcore.visualize.receptive_field import ReceptiveField
from nstcore.visualize.top import Best

from .patches_help import small_net, some_pictures

FIELD = ReceptiveField((3, 3), (2, 2), (-1, -1))


def values_of(net: nn.Module, picture: np.ndarray, layer: str) -> np.ndarray:
    with nst.no_grad():
        return activations(net, nst.Tensor(picture[None]), layer).data[0]


class TestBest:
    def test_is_the_sort_of_everything(self) -> None:
        """On a coarse grid there are many ties: the first picture wins, and in it the first place, row by row."""
        rng = np.random.default_rng(0)
        maps = [rng.integers(-3, 4, (int(rng.integers(1, 6)), 5, 7)).astype(np.float32) for _ in range(40)]
        best = Best(7, 4)
        for number, a in enumerate(maps):
            best = best.added(a, number, FIELD)
        for unit in range(7):
            rows = []
            for number, a in enumerate(maps):
                row, column = np.unravel_index(np.argmax(a[:, :, unit]), a.shape[:2])
                rows.append((-a[row, column, unit], number, row, column))
            expected = [r for r in sorted(rows) if r[0] != 0][:4]
            got = best.table(unit)
            assert [(-e["activation"], e["image"], e["row"], e["column"]) for e in got] == expected
            assert all((e["top"], e["left"]) == (2 * e["row"] - 1, 2 * e["column"] - 1) for e in got)

    def test_adding_changes_nothing_of_the_one_before(self) -> None:
        first = Best(2, 3)
        second = first.added(np.ones((2, 2, 2), np.float32), 0, FIELD)
        assert first.table(0) == []
        assert len(second.table(0)) == 1
        assert second.added(np.zeros((2, 2, 2), np.float32), 1, FIELD) is second

    def test_silent_and_broken_units_have_none(self) -> None:
        a = np.zeros((3, 3, 3), np.float32)
        a[:, :, 1] = np.nan
        a[1, 2, 2] = 5
        a[0, 0, 2] = np.nan
        best = Best(3, 2).added(a, 0, FIELD)
        assert [len(best.table(unit)) for unit in range(3)] == [0, 0, 1]
        assert (best.table(2)[0]["row"], best.table(2)[0]["column"]) == (1, 2)

    def test_several_of_one_picture_overlap_by_less_than_half(self) -> None:
        field = ReceptiveField((6, 6), (2, 2), (-2, -2))
        a = np.random.default_rng(3).random((9, 9, 1)).astype(np.float32)
        best = Best(1, 9, several=True).added(a, 0, field)
        places = [(e["row"], e["column"]) for e in best.table(0)]
        assert places[0] == np.unravel_index(np.argmax(a), (9, 9))
        for i, one in enumerate(places):
            for other in places[:i]:
                assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) * 2 >= 3
        # Greedy: each is the highest of what the ones before it leave.
        left = a[:, :, 0].copy()
        for row, column in places:
            assert left[row, column] == left.max()
            left[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = -1


class TestTopPatches:
    @pytest.mark.parametrize("layer", ["parts.0", "parts.2"])
    def test_are_the_highest_of_all_pictures(self, layer: str) -> None:
        net, known = small_net(), some_pictures()
        planes = [values_of(net, picture, layer) for picture in known]
        for found in top_patches(net, layer, [0, 3, 5], known, count=9):
            peaks = np.array([plane[:, :, found.unit].max() for plane in planes])
            order = [int(i) for i in np.argsort(-peaks, kind="stable") if peaks[i] > 0][:9]
            assert [patch.picture for patch in found.patches] == order
            for patch in found.patches:
                assert (
                    planes[patch.picture][patch.place][found.unit]
                    == np.float32(patch.activation)
                    == peaks[patch.picture]
                )
                assert patch.name == f"picture {patch.picture}"

    def test_of_different_pictures_by_default(self) -> None:
        net, known = small_net(), some_pictures(3)
        for found in top_patches(net, "parts.0", None, known):
            assert len({patch.picture for patch in found.patches}) == len(found.patches) <= 3
        several = top_patches(net, "parts.0", 1, known, distinct=False)[0]
        assert len(several.patches) == 9

    def test_a_crop_is_exactly_what_the_unit_sees(self) -> None:
        """Inside of the box every pixel can change the unit, outside none does, at the border and in the middle."""
        net = models.vgg16(dtype=np.float64)
        photo = load(picture_path("chelsea"), size=64).astype(np.float64)
        reached = False
        for found in top_patches(net, "conv3_1", [3, 60, 200], [photo, photo[::-1], photo[:, ::-1]], count=3):
            for patch in found.patches:
                picture = [photo, photo[::-1], photo[:, ::-1]][patch.picture]
                top, left, bottom, right = patch.box
                assert (bottom - top, right - left) == (24, 24) == patch.pixels.shape[:2]
                before = values_of(net, picture, "conv3_1")[patch.place][found.unit]
                outside = np.ones(picture.shape[:2], bool)
                outside[max(0, top) : bottom, max(0, left) : right] = False
                changed = np.where(outside[:, :, None], 1 - picture, picture)
                # Winograd's tiles hold pixels of several fields: what cancels leaves a rounding error.
                after = values_of(net, changed, "conv3_1")[patch.place][found.unit]
                assert after == pytest.approx(before, rel=1e-12)
                rows, columns = np.nonzero(~outside)
                reached |= top < 0 or left < 0
                # The outermost rows and columns matter, too: those of the box that lie in the picture.
                for edge in (
                    rows == rows.min(),
                    rows == rows.max(),
                    columns == columns.min(),
                    columns == columns.max(),
                ):
                    changed = picture.copy()
                    changed[rows[edge], columns[edge]] = 1 - changed[rows[edge], columns[edge]]
                    after = values_of(net, changed, "conv3_1")[patch.place][found.unit]
                    assert abs(after - before) > 1e-9 * before
                real = np.rint(255 * picture[max(0, top) : bottom, max(0, left) : right]).astype(np.uint8)
                part = patch.pixels[max(0, -top) :, max(0, -left) :][: real.shape[0], : real.shape[1]]
                np.testing.assert_array_equal(part, real)
        assert reached, "no patch of this test reaches over a border"

    def test_outside_of_the_picture_is_hatched(self) -> None:
        pixels = hatched(np.zeros((4, 4, 3)), (-2, 1, 3, 8))
        assert pixels.shape == (5, 7, 3)
        assert (pixels[2:, :3] == 0).all()
        outside = np.concatenate([pixels[:2].ravel(), pixels[2:, 3:].ravel()])
        assert set(outside.tolist()) == {176, 208}

    def test_pictures_smaller_than_the_field_are_used(self) -> None:
        net = models.vgg16()
        tiny = load(picture_path("coffee"), size=40)
        found = index_patches(net, [tiny], ["conv4_1", "conv2_1"])
        assert (found.skipped, found.small, found.missed) == (
            0, {"conv4_1": 1, "conv2_1": 0}, {"conv4_1": 0, "conv2_1": 0}
        )  # fmt: skip
        (unit,) = top_patches(net, "conv4_1", int(np.argmax(found.layers["conv4_1"].value[:, 0])), [tiny])
        assert unit.patches[0].pixels.shape == (60, 60, 3)

    def test_size_shrinks_larger_pictures_only(self) -> None:
        known = pictures([np.zeros((40, 20, 3)), np.zeros((10, 8, 3))], size=20)
        assert [known.load(i).shape for i in range(2)] == [(20, 10, 3), (10, 8, 3)]

    def test_a_network_of_a_users_own(self) -> None:
        """Parts inside of parts, with a residual sum: every part's feature map is a layer."""

        class Net(nn.Module):
            def __init__(self) -> None:
                rng = np.random.default_rng(0)
                self.stem, self.tail = nn.Conv2d(3, 4, 3, padding=1, rng=rng), [nn.Conv2d(4, 4, 3, padding=1, rng=rng)]

            def forward(self, x: Any) -> Any:
                y = self.stem(x)
                return y + self.tail[0](y)

        (found,) = top_patches(Net(), "output", 2, some_pictures(4), count=2)
        assert found.patches[0].pixels.shape == (5, 5, 3)

    def test_errors(self, tmp_path: Path) -> None:
        net, known = small_net(), some_pictures(2)
        with pytest.raises(ArgumentError, match=r"a unit of parts.0 from 0 to 5, got 6"):
            top_patches(net, "parts.0", 6, known)
        with pytest.raises(ArgumentError, match=r"no layer 'conv1'; it has parts.0, parts.1, parts.2, output"):
            top_patches(net, "conv1", 0, known)
        for units, words in (
            (1.5, "as a whole number from 0 to 5, several of them, or None for all; got 1.5"),
            (True, "for all; got True"),
            ("3:", "for all; got '3:'"),
            ([1, 2.5], "a unit of parts.0 from 0 to 5, got 2.5"),
            ([], "at least one unit of parts.0, got none"),
        ):
            with pytest.raises(ArgumentError, match=words):
                top_patches(net, "parts.0", units, known)  # type: ignore[arg-type]
        for count in (0, 101, True, 2.5):
            with pytest.raises(ArgumentError, match="count from 1 to 100"):
                top_patches(net, "parts.0", 0, known, count=count)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match="has no pictures"):
            top_patches(net, "parts.0", 0, tmp_path)
        with pytest.raises(ImageError, match="does not exist"):
            top_patches(net, "parts.0", 0, tmp_path / "absent")
        with pytest.raises(ArgumentError, match="at least one picture"):
            top_patches(net, "parts.0", 0, [])
        with pytest.raises(DTypeError, match="paths and arrays as pictures, got int"):
            top_patches(net, "parts.0", 0, [3])


@pytest.mark.data
def test_photographs(test_data: Path, tmp_path: Path) -> None:
    """Real files of different sizes: the nine of some units of three layers are those that all features give."""
    files = sorted((test_data / "images").glob("*.jpg"))[:14]
    net = models.vgg16()
    layers = ["conv1_2", "conv2_2", "conv3_1"]
    found = index_patches(net, files, layers, index=tmp_path / "index.npz", count=5)
    assert found.skipped == 0
    assert len({load(file).shape for file in files}) > 1
    peaks = {name: [] for name in layers}
    for file in files:
        for name, values in net.features(load(file), layers).items():
            peaks[name].append(values[0].max((0, 1)))
    for name in layers:
        table = np.array(peaks[name])
        expected = -np.sort(-table, axis=0)[:5].T
        got = np.where(np.isfinite(found.layers[name].value), found.layers[name].value, 0)
        np.testing.assert_array_equal(got, expected)
        fired = found.layers[name].places[0] >= 0
        order = np.argsort(-table, axis=0, kind="stable")[:5].T
        np.testing.assert_array_equal(found.layers[name].places[0][fired], order[fired])
