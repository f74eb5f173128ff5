"""The index of patches: what is kept and reused, what is skipped, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstcore import models, nn
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, ImageError, PatchIndexError
from nstcore.images import load, save
from nstcore.visualize import index_patches, load_index, top_patches
from nstcore.visualize.pictures import AHEAD, Pictures, pictures
from nstcore.visualize.top import Best

from .patches_help import small_net, some_pictures


def state(index: Any) -> list[Any]:
    return [(name, best.value.tobytes(), best.places.tobytes()) for name, best in index.layers.items()] + [
        index.done, index.skipped, index.broken, index.small, index.missed, index.copies, index.pixels.tobytes()
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    (place / "inner").mkdir(parents=True)
    for number, picture in enumerate(some_pictures(12)):
        save(place / ("inner" if number % 3 == 0 else ".") / f"{number:02}.png", picture)
    (place / "notes.txt").write_text("no picture")
    (place / ".hidden.png").write_bytes(b"nothing")
    return place


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
