"""Finding faces: the boxes of the reference implementation, and pictures of every kind."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import nstcore as nst
from nstcore import faces, images
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, ImageError, ShapeError
from nstcore.faces import Face, _cascade
from nstcore.faces._area import AreaMeans
from nstcore.faces._boxes import inside, keep_best, squared

Array = NDArray[Any]
# written by tools/mtcnn_reference.py; which version of which package it is from stands in the file
REFERENCE = json.loads(Path(__file__).with_name("mtcnn_reference.json").read_text(encoding="utf-8"))["faces"]


def overlap(a: Any, b: Any) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def assert_same(found: list[Face], expected: list[Face], pixels: float = 0.01) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.box, b.box, atol=pixels)
        np.testing.assert_allclose(a.landmarks, b.landmarks, atol=pixels)


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    return np.rint(images.load(picture_path("astronaut")) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def small(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The astronaut's head and shoulders, quick to search: 160 × 200 pixels, the face about 90 wide."""
    return np.ascontiguousarray(astronaut[30:230, 140:300])


@pytest.fixture(scope="module")
def face(small: NDArray[np.uint8]) -> Face:
    (found,) = faces.detect(small)
    return found


# ---- the reference ----


def check_reference(name: str, path: Path) -> None:
    """The same faces, with a hundredth of what the issue asks for."""
    found, expected = faces.detect(path), REFERENCE[name]
    assert len(found) == len(expected)
    for wanted in expected:
        best = max(found, key=lambda each: overlap(each.box, wanted["box"]))
        assert overlap(best.box, wanted["box"]) > 0.999
        assert best.score == pytest.approx(wanted["score"], abs=1e-4)
        np.testing.assert_allclose(best.landmarks, wanted["landmarks"], atol=5e-4 * best.width)


@pytest.mark.parametrize("name", ["astronaut", "chelsea"])
def test_the_package_s_own_pictures(name: str) -> None:
    check_reference(f"demo/{name}", picture_path(name))


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in REFERENCE if name.startswith("data/")])
def test_photographs(test_data: Path, name: str) -> None:
    check_reference(name, test_data / "faces" / name.removeprefix("data/"))


# ---- pictures of every kind ----


def test_landmarks_lie_where_they_belong(face: Face) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    left, top, right, bottom = face.box
    assert ((left, top) < face.landmarks).all()
    assert (face.landmarks < (right, bottom)).all()
    assert face.score > 0.99


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_by_exif(small: NDArray[np.uint8], face: Face, orientation: int) -> None:
    """The picture is stored as a camera would that was held that way, and comes out upright."""
    store = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(store[orientation](small))).save(file, "PNG", exif=exif)
    assert_same(faces.detect(file), [face], 0)


def test_every_form_of_a_picture_gives_the_same(small: NDArray[np.uint8], face: Face, tmp_path: Path) -> None:
    floats = (small / 255).astype(np.float32)
    opaque = np.concatenate([small, np.full_like(small[:, :, :1], 255)], axis=2)
    images.save(tmp_path / "a.png", small)
    for source in (floats, small / 255, opaque, Image.fromarray(small), tmp_path / "a.png", np.asfortranarray(small)):
        assert_same(faces.detect(source), [face], 0)


def test_grey_pictures(small: NDArray[np.uint8], face: Face) -> None:
    grey = np.rint(small @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    for source in (grey, grey[:, :, None], np.repeat(grey[:, :, None], 3, axis=2)):
        (found,) = faces.detect(source)
        assert overlap(found.box, face.box) > 0.8


def test_a_face_cut_by_the_border(small: NDArray[np.uint8], face: Face) -> None:
    cut = round(face.box[0] + 0.1 * face.width)
    (found,) = faces.detect(np.ascontiguousarray(small[:, cut:]))
    moved = (face.box[0] - cut, face.box[1], face.box[2] - cut, face.box[3])
    assert overlap(found.box, moved) > 0.7
    assert found.box[0] < 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (11, 11), (12, 12), (19, 300), (20, 20), (21, 33)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert faces.detect(picture) == []
    assert faces.detect(picture, min_size=6) == []


def test_a_small_face_is_found_when_asked_for(small: NDArray[np.uint8]) -> None:
    tiny = np.rint(images.resize(small, 24) * 255).astype(np.uint8)  # the face is 10 pixels wide
    assert faces.detect(tiny) == []
    (found,) = faces.detect(tiny, min_size=10)
    assert 6 < found.width < 14


def test_many_faces_the_largest_first(small: NDArray[np.uint8], face: Face) -> None:
    canvas = np.full((460, 640, 3), 128, np.uint8)
    places = [(0, 0, 200), (0, 200, 160), (0, 400, 120), (230, 0, 100), (230, 200, 180), (230, 420, 140)]
    for top, left, size in places:
        copy = np.rint(images.resize(small, size) * 255).astype(np.uint8)
        canvas[top : top + copy.shape[0], left : left + copy.shape[1]] = copy
    found = faces.detect(canvas)
    assert len(found) == len(places)
    areas = [each.width * each.height for each in found]
    assert areas == sorted(areas, reverse=True)
    for each, (top, left, size) in zip(found, sorted(places, key=lambda place: -place[2]), strict=True):
        scale = size / 200
        expected = np.tile((left, top), 2) + scale * np.array(face.box)
        assert overlap(each.box, expected) > 0.75
    assert_same(faces.detect(canvas, max_faces=2), found[:2], 0)


def test_nothing_there() -> None:
    assert faces.detect(np.zeros((60, 80, 3), np.uint8)) == []
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3)).astype(np.uint8)
    assert faces.detect(noise) == []


def test_a_large_picture_is_searched_in_a_smaller_copy(astronaut: NDArray[np.uint8]) -> None:
    (expected,) = faces.detect(astronaut)
    large = astronaut.repeat(2, axis=0).repeat(2, axis=1)
    (found,) = faces.detect(large, max_side=512)
    assert overlap(np.array(found.box) / 2, expected.box) > 0.9
    np.testing.assert_allclose(found.landmarks / 2, expected.landmarks, atol=0.03 * expected.width)
    assert faces.detect(large, max_side=24) == []  # 4 pixels are left of the face
    (again,) = faces.detect(large, max_side=None, min_size=100)
    assert overlap(again.box, found.box) > 0.85


# ---- what must not matter ----


def test_strips_batches_and_threads_change_nothing(
    small: NDArray[np.uint8], face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cascade, "_STRIP", 1)
    monkeypatch.setattr(_cascade, "_BATCH", 3)
    for threads in (1, 3):
        nst.set_num_threads(threads)
        assert_same(faces.detect(small), [face], 1e-3)


def test_the_same_again(small: NDArray[np.uint8]) -> None:
    first, second = faces.detect(small), faces.detect(small)
    assert [each.to_json() for each in first] == [each.to_json() for each in second]


def test_the_picture_is_not_changed(small: NDArray[np.uint8]) -> None:
    before = small.copy()
    faces.detect(small)
    np.testing.assert_array_equal(small, before)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_size": 5}, "min_size of at least 6 pixels, got 5"),
        ({"min_size": float("nan")}, "min_size"),
        ({"min_size": "20"}, "min_size"),
        ({"thresholds": (0.5, 0.5)}, "three thresholds"),
        ({"thresholds": (0.5, 0.5, 1.5)}, "three thresholds"),
        ({"max_faces": 0}, "max_faces"),
        ({"max_side": 0.5}, "max_side"),
    ],
)
def test_options_outside_their_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        faces.detect(np.zeros((30, 30, 3), np.uint8), **options)


def test_pictures_that_cannot_be_read(tmp_path: Path, small: NDArray[np.uint8]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        faces.detect(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="over the limit of 1,000 pixels"):
        faces.detect(small, max_pixels=1000)
    with pytest.raises(ImageError, match="over the limit of 100,000,000 pixels"):
        faces.detect(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10_001, 10_000, 3)))
    with pytest.raises(ShapeError):
        faces.detect(np.zeros((0, 5, 3), np.uint8))


# ---- the parts ----


def test_area_means_against_plain_means() -> None:
    levels = np.random.default_rng(3).integers(0, 256, (13, 17, 3)).astype(np.uint8)
    means = AreaMeans(levels, 10.0, 0.5)

    def plain(part: Array, height: int, width: int) -> Array:
        result = np.empty((height, width, 3))
        for p in range(height):
            for q in range(width):
                rows = slice(p * part.shape[0] // height, -(-(p + 1) * part.shape[0] // height))
                columns = slice(q * part.shape[1] // width, -(-(q + 1) * part.shape[1] // width))
                result[p, q] = part[rows, columns].mean(axis=(0, 1))
        return (result - 10) * 0.5

    for size in ((13, 17), (5, 4), (1, 1), (20, 31)):
        np.testing.assert_allclose(means.resized(*size)[0], plain(levels, *size), atol=1e-4)
    boxes = np.array([[0, 0, 17, 13], [3, 2, 4, 3], [5, 1, 16, 12]])
    found = means.windows(boxes, 6)
    for box, window in zip(boxes, found, strict=True):
        np.testing.assert_allclose(window, plain(levels[box[1] : box[3], box[0] : box[2]], 6, 6), atol=1e-4)
    for box in ([0, 0, 18, 13], [4, 4, 4, 8], [-1, 0, 3, 3]):
        with pytest.raises(ValueError, match="a box is empty or not inside the picture"):
            means.windows(np.array([box]), 6)


@pytest.mark.parametrize("of_smaller", [False, True])
def test_overlapping_boxes_against_one_at_a_time(of_smaller: bool) -> None:
    """More boxes than a block, many of the same score."""
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (300, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 40, 300).astype(np.float32) / 40
    extra, expected = float(of_smaller), []

    def shared(a: Array, b: Array) -> float:
        sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + extra) for i in range(2)]
        areas = [(box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b)]
        both = sides[0] * sides[1]
        return both / (min(areas) if of_smaller else sum(areas) - both)

    for i in np.argsort(-scores, kind="stable"):
        if all(shared(boxes[i], boxes[j]) <= 0.4 for j in expected):
            expected.append(int(i))
    assert 10 < len(expected) < 200
    assert keep_best(boxes, scores, 0.4, of_smaller=of_smaller).tolist() == expected


def test_no_boxes() -> None:
    assert keep_best(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5).shape == (0,)


def test_boxes_become_squares_and_pixels() -> None:
    boxes = np.array([[10, 20, 30, 60], [-5, -5, 4, 4], [90, 0, 130, 20]], np.float32)
    np.testing.assert_array_equal(squared(boxes)[0], [0, 20, 40, 60])
    np.testing.assert_array_equal(inside(boxes, 100, 50), [[9, 19, 30, 50], [0, 0, 4, 4], [89, 0, 100, 20]])


@pytest.mark.parametrize(
    "options",
    [
        {"thresholds": 0.5},
        {"thresholds": ("a", 0, 0)},
        {"thresholds": None},
        {"max_pixels": "x"},
        {"max_pixels": 0},
        {"min_size": "20"},
    ],
)
def test_options_of_another_kind_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"^\[detect\] expects"):
        faces.detect(np.zeros((30, 30, 3), np.uint8), **options)


def test_a_picture_that_is_ready_is_not_copied() -> None:
    """Detection needs the levels, a quarter of the floats; alignment, quality and drawing next to nothing."""
    picture = np.zeros((2000, 3000, 3), np.float32)
    face = Face((1000, 1000, 1100, 1100), face_points(), 0.99)

    def most(work: Any) -> int:
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    faces.align(picture, face)  # what is made once
    assert most(lambda: faces.align(picture, face)) < picture.nbytes / 8
    assert most(lambda: faces.quality(picture, face)) < picture.nbytes / 8
    assert most(lambda: images.readable(picture)) < picture.nbytes / 8


def face_points() -> Any:
    return np.array([(1030, 1030), (1070, 1030), (1050, 1050), (1032, 1075), (1068, 1075)], np.float32)
