"""The nine patches: against a sort of everything, their crops exact to the pixel, and the index that keeps them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import models, nn
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, DTypeError, ImageError, PatchIndexError
from nstcore.images import load, save
from nstcore.visualize import index_patches, load_index, top_patches
from nstcore.visualize.network import activations
from nstcore.visualize.patches import hatched
from nstcore.visualize.pictures import AHEAD, Pictures, pictures
from nstcore.visualize.receptive_field import ReceptiveField
from nstcore.visualize.top import Best

FIELD = ReceptiveField((3, 3), (2, 2), (-1, -1))


def small_net(seed: int = 0) -> nn.Module:
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, activation="relu", rng=rng), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, activation="relu", rng=rng),
    )  # fmt: skip


def some_pictures(count: int = 30, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.random((int(rng.integers(6, 15)), int(rng.integers(6, 15)), 3)).astype(np.float32) for _ in range(count)
    ]


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    (place / "inner").mkdir(parents=True)
    for number, picture in enumerate(some_pictures(12)):
        save(place / ("inner" if number % 3 == 0 else ".") / f"{number:02}.png", picture)
    (place / "notes.txt").write_text("no picture")
    (place / ".hidden.png").write_bytes(b"nothing")
    return place


def state(index: Any) -> list[Any]:
    return [(name, best.value.tobytes(), best.places.tobytes()) for name, best in index.layers.items()] + [
        index.done, index.skipped, index.broken, index.small, index.missed, index.copies, index.pixels.tobytes()
    ]  # fmt: skip


class TestIndex:
    def test_a_folder_in_the_order_of_its_names(self, folder: Path) -> None:
        known = pictures(folder)
        assert len(known) == 12
        assert list(known.names) == sorted(known.names)
        assert "inner/00.png" in known.names

    def test_strange_entries_of_a_folder(self, folder: Path) -> None:
        """A pipe is not waited for, a link to nothing is listed, a name that is no text can be shown."""
        from nstcore.visualize.pages import write_patches

        os.mkfifo(folder / "pipe.png")
        (folder / "nothing.png").symlink_to(folder / "absent.png")
        (folder / "directory.png").mkdir()
        os.rename(os.fsencode(folder / "01.png"), os.fsencode(folder) + b"/\xff.png")
        found = index_patches(small_net(), folder)
        assert (found.total, found.skipped, found.broken[0][0]) == (13, 1, "nothing.png")
        found.save(folder / "index.npz")
        assert state(load_index(folder / "index.npz")) == state(found)
        write_patches(folder / "page.html", "\udcff", "", {}, {}, {}, ["patch"], 9)
        assert "<title>?</title>" in (folder / "page.html").read_text()

    def test_later_calls_reuse_it(self, folder: Path, tmp_path: Path) -> None:
        net, path, seen = small_net(), tmp_path / "index.npz", []
        first = index_patches(net, folder, index=path, progress=seen.append)
        assert [step.done for step in seen] == list(range(1, 13))
        again = index_patches(net, folder, ["parts.2"], index=path, count=4, progress=seen.append)
        assert len(seen) == 12, "the pictures were looked at again"
        assert state(again) == state(first)
        assert first.layers.keys() == {"parts.0", "parts.1", "parts.2", "output"}

    @pytest.mark.parametrize("stop", [1, 5, 11])
    def test_an_interrupted_pass_goes_on(self, folder: Path, tmp_path: Path, stop: int) -> None:
        net, path = small_net(), tmp_path / "index.npz"

        def interrupt(step: Any) -> None:
            if step.done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index_patches(net, folder, index=path, progress=interrupt)
        assert load_index(path).done == stop
        seen: list[Any] = []
        resumed = index_patches(net, folder, index=path, progress=seen.append)
        assert [step.done for step in seen] == list(range(stop + 1, 13))
        assert state(resumed) == state(index_patches(net, folder))
        assert state(load_index(path)) == state(resumed)

    def test_a_picture_that_is_interrupted_counts_not_at_all(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The interrupt comes between two layers of one picture."""
        net, path = small_net(), tmp_path / "index.npz"
        original, calls = Best.added, []

        def added(self: Best, *arguments: Any) -> Best:
            calls.append(0)
            if len(calls) == 4 * 5 + 3:
                raise KeyboardInterrupt
            return original(self, *arguments)

        monkeypatch.setattr(Best, "added", added)
        with pytest.raises(KeyboardInterrupt):
            index_patches(net, folder, index=path)
        kept = load_index(path)
        assert kept.done == 5
        assert kept.layers["parts.0"].places[0].max() == kept.done - 1
        monkeypatch.undo()
        assert state(index_patches(net, folder, index=path)) == state(index_patches(net, folder))

    def test_broken_files_are_listed_and_skipped(self, folder: Path) -> None:
        (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:40])
        (folder / "07.png").write_text("no picture at all")
        net = small_net()
        found = index_patches(net, folder)
        assert found.skipped == 2
        assert [name for name, _ in found.broken] == ["05.png", "07.png"]
        assert all(reason.startswith("[image]") for _, reason in found.broken)
        good = [folder / name for name in pictures(folder).names if name not in ("05.png", "07.png")]
        np.testing.assert_array_equal(found.layers["parts.2"].value, index_patches(net, good).layers["parts.2"].value)

    def test_a_picture_that_is_too_small_for_a_layer_is_used_for_the_others(self) -> None:
        photo = load(picture_path("rocket"), size=64)
        pair = [photo[:9, :9], photo]
        found = index_patches(models.vgg16(), pair, ["conv1_1", "conv2_2", "conv5_1"])
        assert (found.skipped, found.missed) == (0, {"conv1_1": 0, "conv2_2": 0, "conv5_1": 1})
        assert [found.used(layer) for layer in found.layers] == [2, 2, 1]
        ((name, reason),) = found.found.layers["conv5_1"].reasons
        assert (name, reason) == (
            "picture 0", "[vgg16] expects pictures of at least 16 x 16 for conv5_1, got 9 x 9 (height x width)"
        )  # fmt: skip
        for layer in ("conv1_1", "conv2_2"):
            alone = index_patches(models.vgg16(), pair, [layer])
            np.testing.assert_array_equal(found.layers[layer].value, alone.layers[layer].value)
            assert (found.layers[layer].places[0] == 0).any()

    def test_none_can_be_read(self, tmp_path: Path) -> None:
        for name in "abcdefg":
            (tmp_path / f"{name}.png").write_text("no picture")
        for net in (small_net(), models.vgg16()):
            with pytest.raises(ImageError, match=r"none of the 7 pictures can be .*a\.png: \[image\].*; and 2 more"):
                index_patches(net, tmp_path)

    def test_none_can_be_used_for_a_layer(self) -> None:
        dots = [np.full((2, 3, 3), level, np.float32) for level in (0.1, 0.2)]
        with pytest.raises(ImageError, match=r"for conv3_1: picture 0: .* at least 4 x 4 .*; picture 1: \[vgg16\]"):
            top_patches(models.vgg16(), "conv3_1", 0, dots)

    @pytest.mark.parametrize("place", [0, 2])
    def test_a_tiny_picture_among_those_of_a_users_network(self, place: int) -> None:
        """Its size gives no layers; those of the others do, wherever it stands."""
        rng = np.random.default_rng(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 5, rng=rng), nn.Conv2d(4, 5, 5, rng=rng))
        known = [rng.random((12, 12, 3)).astype(np.float32) for _ in range(2)]
        known.insert(place, np.zeros((6, 6, 3), np.float32))
        (found,) = top_patches(net, "parts.1", 2, known)
        assert sorted(patch.picture for patch in found.patches) == [i for i in range(3) if i != place]
        index = index_patches(net, known)
        assert index.missed == {"parts.0": 0, "parts.1": 1, "output": 1}

    def test_a_picture_with_nan_says_so(self) -> None:
        known = some_pictures(2)
        known[0][3, 3, 1] = np.nan
        found = index_patches(small_net(), known)
        assert found.broken == (("picture 0", "[image] expects floats in [0, 1], got NaN"),)

    def test_pictures_with_the_same_pixels_count_once(self, folder: Path, tmp_path: Path) -> None:
        from PIL import Image

        (folder / "zz.png").write_bytes((folder / "04.png").read_bytes())
        Image.open(folder / "05.png").save(folder / "zzz.tif")
        net, path = small_net(), tmp_path / "index.npz"
        found = index_patches(net, folder, index=path)
        assert found.copies == (("zz.png", "04.png"), ("zzz.tif", "05.png"))
        assert (found.used("parts.0"), found.total, found.skipped) == (12, 14, 0)
        for best in found.layers.values():
            assert best.places[0].max() < 12
        assert state(load_index(path)) == state(found)
        again = index_patches(net, folder, ["parts.0"], count=14, index=path)
        assert again.copies == found.copies
        assert (again.layers["parts.0"].places[0, 0] >= 0).sum() == 12

    @pytest.mark.parametrize("limit", [99, 100])
    def test_max_pixels(self, limit: int) -> None:
        known = [np.full((10, 10, 3), 0.5, np.float32), np.full((8, 8, 3), 0.5, np.float32)]
        found = index_patches(small_net(), known, max_pixels=limit)
        assert found.skipped == (limit < 100)
        if found.skipped:
            assert "10x10 pixels" in found.broken[0][1]
        with pytest.raises(ArgumentError, match="max_pixels as a whole number of at least 1, got 0"):
            index_patches(small_net(), known, max_pixels=0)

    def test_refuses_what_it_was_not_made_of(self, folder: Path, tmp_path: Path) -> None:
        net, path = small_net(), tmp_path / "index.npz"
        index_patches(net, folder, ["parts.0"], index=path, count=3)
        before = path.read_bytes()
        for changed, words in (
            (lambda: index_patches(small_net(1), folder, ["parts.0"], index=path, count=3), "another network or other"),
            (lambda: index_patches(net, some_pictures(12), ["parts.0"], index=path, count=3), "of other pictures"),
            (lambda: index_patches(net, folder, ["parts.0"], index=path, count=3, size=9), "of other pictures"),
            (lambda: index_patches(net, folder, ["parts.0"], index=path, count=3, distinct=False), "several patches"),
        ):
            with pytest.raises(PatchIndexError, match=words):
                changed()
        os.utime(folder / "01.png", (1, 1))
        with pytest.raises(PatchIndexError, match="or they changed since"):
            index_patches(net, folder, ["parts.0"], index=path, count=3)
        assert path.read_bytes() == before

    def test_an_index_gets_what_it_lacks_and_keeps_the_rest(self, folder: Path, tmp_path: Path) -> None:
        (folder / "05.png").write_text("no picture")
        net, path, seen = small_net(), tmp_path / "index.npz", []
        first = index_patches(net, folder, ["parts.0"], index=path, count=3)
        assert first.notes == ()
        more = index_patches(net, folder, ["parts.0", "parts.1"], index=path, count=3, progress=seen.append)
        assert (len(seen), more.skipped, list(more.layers)) == (12, 1, ["parts.0", "parts.1"])
        assert more.notes == ("for parts.1: the index has parts.0",)
        assert more.layers["parts.0"].value.tobytes() == first.layers["parts.0"].value.tobytes()
        alone = index_patches(net, folder, ["parts.1"], count=3).layers["parts.1"]
        np.testing.assert_array_equal(more.layers["parts.1"].value, alone.value)
        np.testing.assert_array_equal(more.layers["parts.1"].places, alone.places)
        wider = index_patches(net, folder, ["parts.1"], index=path, count=5)
        assert wider.notes == ("again for parts.1: the index keeps 3 patches a unit, 5 are wanted",)
        assert {name: best.value.shape[1] for name, best in wider.layers.items()} == {"parts.0": 3, "parts.1": 5}
        seen.clear()
        last = index_patches(net, folder, ["parts.0", "parts.1"], index=path, count=3, progress=seen.append)
        assert (seen, last.notes, state(last)) == ([], (), state(wider))

    def test_adding_a_layer_can_be_interrupted(self, folder: Path, tmp_path: Path) -> None:
        """What was there stays whole, and what was added goes on."""
        net, path, seen = small_net(), tmp_path / "index.npz", []
        first = index_patches(net, folder, ["parts.0"], index=path)

        def interrupt(step: Any) -> None:
            if step.done == 7:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index_patches(net, folder, ["parts.2"], index=path, progress=interrupt)
        kept = load_index(path).found.layers
        assert {name: part.done for name, part in kept.items()} == {"parts.0": 12, "parts.2": 7}
        index_patches(net, folder, ["parts.0"], index=path, progress=seen.append)
        assert seen == []
        done = index_patches(net, folder, ["parts.2"], index=path, progress=seen.append)
        assert [step.done for step in seen] == list(range(8, 13))
        assert done.layers["parts.0"].value.tobytes() == first.layers["parts.0"].value.tobytes()
        both = index_patches(net, folder, ["parts.0", "parts.2"])
        assert state(done) == state(both)

    def test_a_unit_is_checked_before_the_pass(self, folder: Path) -> None:
        def works(_: Any) -> None:
            raise AssertionError("the pass began")

        with pytest.raises(ArgumentError, match=r"a unit of parts\.2 from 0 to 7, got 8"):
            top_patches(small_net(), "parts.2", [0, 8], folder, progress=works)

    def test_damage_is_found_wherever_it_is(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "index.npz"
        index_patches(small_net(), folder, ["parts.0"], index=path, count=2)
        good = path.read_bytes()
        rng = np.random.default_rng(0)
        places = [*range(0, 400, 7), *rng.integers(0, len(good), 150).tolist()]
        for at in places:
            bad = bytearray(good)
            bad[at] ^= int(rng.integers(1, 256))
            path.write_bytes(bad)
            try:
                found = state(load_index(path))
            except PatchIndexError:
                continue
            path.write_bytes(good)  # that was a byte of the zip that says nothing, such as a date
            assert found == state(load_index(path))
        for cut in (0, 3, 100, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:cut])
            with pytest.raises(PatchIndexError, match="no index that can be used"):
                load_index(path)
        with pytest.raises(PatchIndexError, match="cannot be read"):
            load_index(tmp_path / "absent.npz")

    @pytest.mark.parametrize(
        "change",
        [
            {"read": 3}, {"total": 2}, {"layers": ["a", "b"]}, {"layers": []}, {"format": "x"}, {"version": 1},
            {"digests": {}}, {"columns": []}, {"broken": 5}, {"layers": {}}, {"skipped": "x"}, {"read": None},
            {"read": 5}, {"copies": [1]}, {"layers": 3}, {"layers": [{"name": "parts.0", "done": 9}]},
        ],
    )  # fmt: skip
    def test_facts_that_lie_behind_a_right_digest(self, tmp_path: Path, change: dict[str, Any]) -> None:
        from nstcore.weights import archive, npy
        from nstcore.weights.format import meta_digest

        path = tmp_path / "index.npz"
        index_patches(small_net(), some_pictures(4), ["parts.0"], index=path, count=2)
        with open(path, "rb") as file:
            arrays = {key: npy.parse(block) for key, block in archive.read_members(file).items()}
        facts = {**json.loads(arrays["__meta__"].tobytes()), **change}
        facts["digest"] = meta_digest(facts)
        arrays["__meta__"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        with open(path, "wb") as file:
            archive.write_members(
                file,
                [
                    (k, npy.header(a), np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
                    for k, a in arrays.items()
                ],
            )
        with pytest.raises(PatchIndexError, match="no index that can be used"):
            load_index(path)

    def test_few_pictures_wait_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory does not grow with the pictures: the thread that decodes never runs far ahead."""
        decoded: list[int] = []
        monkeypatch.setattr(
            Pictures, "load", lambda self, number: decoded.append(number) or np.zeros((8, 8, 3), np.float32)
        )
        known = pictures([np.zeros((8, 8, 3))] * 60)
        for number, *_ in known.ahead():
            assert len(decoded) <= number + 1 + AHEAD + 2
        assert decoded == list(range(60))

    def test_the_thread_ends_with_the_pass(self) -> None:
        import threading

        before = threading.active_count()
        stream = pictures([np.zeros((8, 8, 3))] * 50).ahead()
        next(stream)
        stream.close()
        assert threading.active_count() == before

    def test_an_error_of_ours_in_the_thread_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: Any, number: int) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Pictures, "load", fail)
        with pytest.raises(ZeroDivisionError):
            list(pictures([np.zeros((8, 8, 3))]).ahead())


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
