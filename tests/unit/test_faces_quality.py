"""Quality of a face, and boxes drawn over a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nstcore import faces, images
from nstcore.demo import picture_path
from nstcore.errors import ImageError
from nstcore.faces import Face, Quality, problems
from nstcore.faces.align import TEMPLATE
from nstcore.faces.draw import KNOWN, NEUTRAL, UNKNOWN
from nstcore.faces.quality import pose

Array = NDArray[Any]


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    return np.rint(images.load(picture_path("astronaut"))[30:230, 140:300] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def face(portrait: NDArray[np.uint8]) -> Face:
    (found,) = faces.detect(portrait)
    return found


# ---- quality ----


def test_a_good_portrait_has_no_problems(portrait: NDArray[np.uint8], face: Face) -> None:
    found = faces.quality(portrait, face)
    assert found.size == pytest.approx(min(face.width, face.height))
    assert max(abs(found.yaw), abs(found.roll)) < 10
    assert abs(found.pitch) < 30
    assert found.visible > 0.99
    assert found.score == face.score
    assert problems(found) == []


def test_blurred_and_shrunk_pictures_are_less_sharp(portrait: NDArray[np.uint8], face: Face) -> None:
    values = [faces.quality(portrait, face).sharpness]
    for radius in (1, 2, 4):
        blurred = Image.fromarray(portrait).filter(ImageFilter.GaussianBlur(radius))
        values.append(faces.quality(blurred, face).sharpness)
    assert values == sorted(values, reverse=True)
    assert problems(replace(faces.quality(portrait, face), sharpness=values[-1]))[0].startswith("the face is blurred")
    half = images.resize(portrait, 100)
    smaller = Face(tuple(edge / 2 for edge in face.box), face.landmarks / 2, 1.0)  # type: ignore[arg-type]
    assert faces.quality(half, smaller).sharpness < values[0]


def test_contrast_and_brightness_do_not_change_sharpness(portrait: NDArray[np.uint8], face: Face) -> None:
    expected = faces.quality(portrait, face).sharpness
    pale = (0.5 + 0.3 * portrait / 255).astype(np.float32)
    assert faces.quality(pale, face).sharpness == pytest.approx(expected, rel=1e-3)
    assert faces.quality(np.full_like(portrait, 99), face).sharpness == 0


def turned(yaw: float, pitch: float, roll: float) -> Face:
    """The landmarks of an average head, turned in space and seen from far away; degrees."""
    model = np.column_stack([TEMPLATE - 75, [0, 0, -22, -4, -4]])  # x right, y down, z away from the viewer
    a, b, c = np.deg2rad([yaw, pitch, roll])
    across = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    down = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    around = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    points = model @ (around @ down @ across).T
    return Face((0, 0, 1, 1), (1.3 * points[:, :2] + 200).astype(np.float32), 1.0)


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (40, 0, 0), (-25, 0, 0), (0, 30, 0), (0, -20, 0), (0, 0, 50), (30, 0, -15)]
)
def test_pose_of_an_average_head(angles: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(pose(turned(*angles)), angles, atol=2)


def test_pose_of_a_mirrored_face(face: Face) -> None:
    mirrored = Face(face.box, face.landmarks[[1, 0, 2, 4, 3]] * np.float32([-1, 1]), 1.0)
    yaw, pitch, roll = pose(face)
    np.testing.assert_allclose(pose(mirrored), (-yaw, pitch, -roll), atol=1e-3)


def test_landmarks_in_one_place_have_no_pose() -> None:
    assert np.isfinite(pose(Face((0, 0, 1, 1), np.ones((5, 2), np.float32), 1.0))).all()


def test_visible_part(portrait: NDArray[np.uint8], face: Face) -> None:
    cut = round((face.box[0] + face.box[2]) / 2)
    moved = Face((face.box[0] - cut, face.box[1], face.box[2] - cut, face.box[3]), face.landmarks - [cut, 0], 1.0)
    found = faces.quality(np.ascontiguousarray(portrait[:, cut:]), moved)
    assert 0.35 < found.visible < 0.65
    assert any("border" in words for words in problems(found))


GOOD = Quality(size=200, sharpness=1, yaw=0, pitch=0, roll=90, visible=1, score=1)


@pytest.mark.parametrize(
    ("change", "limit", "words"),
    [
        ({"size": 39.9}, "min_size", "at least 40"),
        ({"sharpness": 0.07}, "min_sharpness", "blurred"),
        ({"yaw": -46}, "max_yaw", r"turned by 46° \(yaw\)"),
        ({"pitch": 41}, "max_pitch", r"turned by 41° \(pitch\)"),
        ({"visible": 0.8}, "min_visible", "80% is visible"),
        ({"score": 0.85}, "min_score", "may be no face"),
    ],
)
def test_each_limit_and_how_it_is_switched_off(change: dict[str, float], limit: str, words: str) -> None:
    found = replace(GOOD, **change)
    (told,) = problems(found)
    assert words.replace("\\", "") in told
    assert problems(found, **{limit: None}) == []
    assert problems(GOOD, **{limit: 1e9 if limit.startswith("min") else -1}) != []
    assert problems(GOOD) == []


@pytest.mark.data
def test_the_photographs_pass_and_their_blurred_copies_do_not(test_data: Path) -> None:
    for path in sorted((test_data / "faces" / "photos").glob("*/1.*")):
        picture = images.load(path)
        face = faces.detect(picture, max_faces=1)[0]
        assert problems(faces.quality(picture, face)) == [], path.name
        levels = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
        blurred = levels.filter(ImageFilter.GaussianBlur(0.04 * face.width))
        assert any("blurred" in words for words in problems(faces.quality(blurred, face))), path.name


# ---- drawing ----


def changed(before: Array, after: Array) -> Array:
    return np.abs(after - images.load(before)).max(axis=2) > 0.02


@pytest.mark.parametrize("size", [(40, 30), (200, 300), (1500, 2000)])
def test_a_box_around_the_face_and_nothing_else(size: tuple[int, int]) -> None:
    height, width = size
    picture = np.full((height, width, 3), 128, np.uint8)
    box = (0.3 * width, 0.3 * height, 0.6 * width, 0.7 * height)
    found = Face(box, np.full((5, 2), (0.45 * width, 0.5 * height), np.float32), 1.0)
    result = faces.draw(picture, [(found, "", True)])
    assert (result.shape, result.dtype) == ((height, width, 3), np.float32)
    np.testing.assert_array_equal(picture, 128)
    rows, columns = np.nonzero(changed(picture, result))
    line = max(2, 0.02 * max(size))
    assert abs(columns.min() - box[0]) <= line
    assert abs(rows.max() - box[3]) <= line
    inner = [slice(round(box[1 - i] + line), round((0.45, 0.4)[i] * size[i])) for i in range(2)]
    assert not changed(picture, result)[tuple(inner)].any()


@pytest.mark.parametrize(("known", "colour"), [(True, KNOWN), (False, UNKNOWN), (None, NEUTRAL)])
def test_colours_and_labels(portrait: NDArray[np.uint8], face: Face, known: bool | None, colour: Any) -> None:
    result = faces.draw(portrait, [(face, "anna", known)])
    count = [np.all(np.abs(x - np.array(colour) / 255) < 0.01, axis=2).sum() for x in (images.load(portrait), result)]
    assert count[1] > count[0] + 100
    plain = faces.draw(portrait, [(face, "", known)])
    label = np.abs(result - plain).max(axis=2) > 0.02
    assert label.sum() > 100
    rows, _ = np.nonzero(label)
    assert rows.max() < face.box[1] + 3  # above the box, where there is room


@pytest.mark.parametrize("box", [(0, 0, 50, 60), (120, 150, 180, 220), (-30, -30, 300, 300), (70, 2, 90, 199)])
def test_labels_stay_inside_the_picture(portrait: NDArray[np.uint8], box: tuple[float, ...]) -> None:
    """Wherever the box is, and however long the name."""
    found = Face(box, np.full((5, 2), 50, np.float32), 1.0)  # type: ignore[arg-type]
    for name in ("x", "a name that is much longer than any picture of this size is wide", "Zoë Łuksza 李"):
        plain, labelled = (faces.draw(portrait, [(found, label, None)]) for label in ("", name))
        assert (np.abs(plain - labelled).max(axis=2) > 0.02).sum() > 40


def test_drawing_needs_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        faces.draw(tmp_path / "none.png", [])
