"""Chips: where the landmarks come to lie, what shrinking does, gradients, and dlib's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nstcore as nst
from nstcore import faces, images, models
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, ShapeError
from nstcore.faces import Face
from nstcore.faces.align import CHIP, TEMPLATE, similarity, visible
from nstcore.models import face_layout

Array = NDArray[Any]


def face_at(points: Array) -> Face:
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return Face((left, top, right, bottom), points.astype(np.float32), 1.0)


def moved(turn: float, scale: float, shift: tuple[float, float]) -> Array:
    """A similarity (2, 3); turn in degrees."""
    angle = np.deg2rad(turn)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([rotation, shift])


def applied(matrix: Array, points: Array) -> Array:
    return points @ matrix[:, :2].T + matrix[:, 2]


def smooth(x: Array, y: Array) -> Array:
    """A picture known at every place, not only at pixels: three slow waves, in [0, 1]."""
    waves = [0.5 + 0.4 * np.sin(0.031 * x + k) * np.cos(0.027 * y - k) for k in range(3)]
    return np.stack(waves, axis=-1)


def picture_of(matrix: Array, height: int, width: int) -> Array:
    """`smooth`, defined in the chip's frame, as a camera sees it that maps the chip's places by `matrix`."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inverse = np.linalg.inv(matrix[:, :2])
    place = (np.stack([x, y], axis=-1) - matrix[:, 2]) @ inverse.T
    return smooth(place[..., 0], place[..., 1])


CENTRES = np.meshgrid(np.arange(CHIP) + 0.5, np.arange(CHIP) + 0.5)


@pytest.mark.parametrize(
    ("turn", "scale", "shift"),
    [(0, 1, (0, 0)), (25, 0.7, (90, 30)), (-60, 1.6, (40, 260)), (180, 3.3, (560, 540)), (10, 5, (30, 20))],
)
def test_a_chip_shows_the_face_in_its_own_frame(turn: float, scale: float, shift: tuple[float, float]) -> None:
    """Also of a face much larger than the chip, which is averaged first, and to a quarter of a pixel."""
    matrix = moved(turn, scale, shift)
    picture = picture_of(matrix, 620, 600)
    chip = faces.align(picture.astype(np.float32), face_at(applied(matrix, TEMPLATE)))
    assert (chip.shape, chip.dtype) == ((CHIP, CHIP, 3), np.float32)
    inside = faces.align(np.ones((620, 600), np.float32), face_at(applied(matrix, TEMPLATE))) > 0.999
    assert inside.mean() > 0.4
    expected = smooth(*CENTRES)
    # a quarter of a pixel is worth 0.25 · 0.4 · 0.031
    assert np.abs(chip - expected)[inside].max() < 0.003


def test_sizes_and_several_faces() -> None:
    matrix = moved(5, 0.9, (30, 20))
    picture = picture_of(matrix, 190, 190).astype(np.float32)
    face = face_at(applied(matrix, TEMPLATE))
    half = faces.align(picture, face, 75)
    assert half.shape == (75, 75, 3)
    whole = faces.align(picture, face)
    np.testing.assert_allclose(half, whole.reshape(75, 2, 75, 2, 3).mean(axis=(1, 3)), atol=2e-2)
    both = faces.align(picture, [face, face])
    np.testing.assert_array_equal(both, np.stack([whole, whole]))
    assert faces.align(picture, []).shape == (0, CHIP, CHIP, 3)


def test_pictures_of_every_kind_give_the_same(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (90, 80, 3)).astype(np.uint8)
    images.save(tmp_path / "a.png", levels)
    face = face_at(0.5 * TEMPLATE)
    expected = faces.align(levels, face)
    for source in (tmp_path / "a.png", (levels / 255).astype(np.float32)):
        np.testing.assert_array_equal(faces.align(source, face), expected)
    tensor = faces.align(nst.tensor((levels / 255).astype(np.float32)), face)
    np.testing.assert_allclose(tensor.data, expected, atol=1e-6)


def test_beyond_the_border_it_is_black() -> None:
    chip = faces.align(np.ones((100, 100), np.float32), face_at(TEMPLATE - [75, 0]))
    assert (chip[:, :70] == 0).all()
    np.testing.assert_allclose(chip[:95, 80:], 1, atol=1e-5)
    assert (faces.align(np.ones((20, 20), np.float32), face_at(TEMPLATE + 5000)) == 0).all()


def test_a_white_picture_stays_in_range() -> None:
    """Weights that are rounded may add up to more than 1, which the encoder would refuse."""
    for scale in (0.31, 1.0, 3.7):
        chip = faces.align(np.ones((700, 700, 3), np.float32), face_at(scale * TEMPLATE))
        assert 1 - 1e-6 < chip.max() <= 1


def test_similarity_recovers_a_known_one_and_mirrors_nothing() -> None:
    points = np.random.default_rng(1).standard_normal((5, 2))
    matrix = moved(33, 1.7, (4, -2))
    np.testing.assert_allclose(similarity(points, applied(matrix, points)), matrix, atol=1e-12)
    found = similarity(points, points * [-1, 1])
    assert np.linalg.det(found[:, :2]) >= 0


def test_similarity_is_the_best_one() -> None:
    """No small change of its four numbers brings the points closer."""
    rng = np.random.default_rng(2)
    source, target = rng.standard_normal((5, 2)), rng.standard_normal((5, 2))
    matrix = similarity(source, target)
    least = np.sum((applied(matrix, source) - target) ** 2)
    a, b = matrix[0, 0], matrix[1, 0]
    for change in np.concatenate([np.eye(4), -np.eye(4)]) * 1e-4:
        c, d = a + change[0], b + change[1]
        near = np.column_stack([[[c, -d], [d, c]], matrix[:, 2] + change[2:]])
        assert np.sum((applied(near, source) - target) ** 2) > least


def test_the_template_is_symmetric_and_the_chip_the_encoder_s() -> None:
    assert face_layout.CHIP == CHIP
    mirrored = TEMPLATE[[1, 0, 2, 4, 3]] * [-1, 1] + [CHIP, 0]
    np.testing.assert_allclose(mirrored, TEMPLATE, atol=1e-9)


def test_jittered_chips() -> None:
    matrix = moved(0, 1, (20, 20))
    picture = picture_of(matrix, 190, 190).astype(np.float32)
    face = face_at(applied(matrix, TEMPLATE))
    chips = faces.jittered(picture, face, 6, seed=3)
    assert (chips.shape, chips.dtype) == ((6, CHIP, CHIP, 3), np.float32)
    np.testing.assert_array_equal(chips, faces.jittered(picture, face, 6, seed=3))
    np.testing.assert_array_equal(chips[:2], faces.jittered(picture, face, 2, seed=3))
    assert not np.array_equal(chips, faces.jittered(picture, face, 6, seed=4))
    plain = faces.align(picture, face)
    for index, chip in enumerate(chips):
        own, other = (chip[:, ::-1], chip) if index % 2 else (chip, chip[:, ::-1])
        gap = [np.abs(a - plain)[40:-40, 40:-40].mean() for a in (own, other)]
        assert 1e-4 < gap[0] < 0.05
        assert gap[0] < gap[1]
    assert faces.jittered(picture, face, 0).shape == (0, CHIP, CHIP, 3)


def test_jittered_chips_of_chips() -> None:
    """Inside, the same as those cut from the photograph; every chip by itself."""
    matrix = moved(0, 1, (20, 20))
    picture = picture_of(matrix, 190, 190).astype(np.float32)
    face = face_at(applied(matrix, TEMPLATE))
    plain = faces.align(picture, face)
    found = faces.jittered_chips(np.stack([plain, plain[::-1]]), 4, seed=3)
    assert (found.shape, found.dtype) == ((2, 4, CHIP, CHIP, 3), np.float32)
    expected = faces.jittered(picture, face, 4, seed=3)
    np.testing.assert_allclose(found[0, :, 20:-20, 20:-20], expected[:, 20:-20, 20:-20], atol=1e-3)
    np.testing.assert_array_equal(faces.jittered_chips(plain[None], 4, seed=3)[0], found[0])
    assert found.min() > 0.05  # no black border
    assert faces.jittered_chips(plain[None], 0).shape == (1, 0, CHIP, CHIP, 3)
    levels = np.rint(plain * 255).astype(np.uint8)
    np.testing.assert_allclose(faces.jittered_chips(levels, 4, seed=3)[0], found[0], atol=3e-3)
    with pytest.raises(ShapeError, match="expects chips"):
        faces.jittered_chips(np.zeros((1, 4, 5, 3)), 1)
    with pytest.raises(ArgumentError, match="a count of at least 0, got -1"):
        faces.jittered_chips(plain, -1)


# ---- gradients ----


def test_gradient_of_a_chip() -> None:
    """Of a small face, and of a large one, which is averaged first."""
    rng = np.random.default_rng(5)
    for scale in (0.06, 0.35):
        face = face_at(applied(moved(20, scale, (9, 2)), TEMPLATE))
        nst.gradcheck(lambda image, face=face: faces.align(image, face, 12), rng.random((40, 44, 3)))


def test_gradient_from_the_encoding_to_the_photograph() -> None:
    """In float64, along a random direction over all pixels, against a central difference."""
    net = models.face_encoder(dtype="float64")
    picture = images.load(picture_path("astronaut"))[40:190, 160:290].astype(np.float64)
    (face,) = faces.detect(picture)
    rng = np.random.default_rng(6)
    weights, direction = rng.standard_normal((1, 128)), rng.standard_normal(picture.shape)

    def value(image: Any) -> Any:
        return nst.ops.sum(net(faces.align(image, [face])) * weights)

    x = nst.tensor(picture, requires_grad=True)
    value(x).backward()
    assert np.abs(x.grad).max() > 0
    step = 1e-8  # at 1e-6 some of the millions of ReLUs and pools switch
    high, low = (float(value(nst.tensor(picture + sign * step * direction)).data) for sign in (1, -1))
    assert np.sum(x.grad * direction) == pytest.approx((high - low) / (2 * step), rel=1e-5)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("points", "error", "words"),
    [
        (np.full((5, 2), 7.0), ArgumentError, "landmarks in different places"),
        (np.zeros((4, 2)), ShapeError, r"landmarks \(5, 2\)"),
        (np.full((5, 2), np.nan), ShapeError, "finite"),
    ],
)
def test_landmarks_that_cannot_be_used(points: Array, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        faces.align(np.zeros((9, 9, 3), np.float32), Face((0, 0, 9, 9), points.astype(np.float32), 1.0))


def test_sizes_and_tensors_that_cannot_be_used() -> None:
    face = face_at(TEMPLATE)
    with pytest.raises(ArgumentError, match="a size of at least 1, got 0"):
        faces.align(np.zeros((9, 9, 3), np.float32), face, 0)
    with pytest.raises(ShapeError, match=r"a tensor \(h, w, 3\), got \(1, 9, 9, 3\)"):
        faces.align(nst.tensor(np.zeros((1, 9, 9, 3), np.float32)), face)


# ---- the photographs ----


@pytest.mark.data
def test_the_encoder_sees_what_dlib_showed_it(test_data: Path) -> None:
    """Our boxes, landmarks and chips against dlib's: all pairs judged rightly at 0.6, and how far encodings moved."""
    with np.load(test_data / "faces" / "dlib_reference.npz") as reference:
        descriptors, files, names = (reference[key] for key in ("descriptors", "files", "names"))
    chips = []
    for file in files:
        path = test_data / "faces" / "photos" / str(file)
        chips.append(faces.align(path, faces.detect(path, max_faces=1)[0]))
    found = models.face_encoder().encode(np.stack(chips))
    apart = np.linalg.norm(found - descriptors, axis=1)
    assert apart.mean() < 0.14  # measured: 0.130, at most 0.202
    assert apart.max() < 0.22
    distances = np.sqrt(nst.ops.pairwise_sqdist(found, found))
    same = names[:, None] == names
    np.testing.assert_array_equal(distances < 0.6, same)
    assert distances[same].max() < 0.55  # measured: 0.533; two people: at least 0.697
    assert distances[~same].min() > 0.68


def test_sizes_and_seeds_outside_their_range_are_refused() -> None:
    face = Face((0, 0, 150, 150), TEMPLATE.astype(np.float32), 1.0)
    picture = np.zeros((150, 150, 3), np.float32)
    with pytest.raises(ArgumentError, match="a size of at most 4096, got 1000000"):
        faces.align(picture, face, 10**6)
    with pytest.raises(ArgumentError, match="a seed of at least 0, got -1"):
        faces.jittered(picture, face, 2, seed=-1)


def test_the_visible_part_is_that_of_a_white_picture() -> None:
    """Against aligning a picture of ones, for a face that the border cuts."""
    face = Face((-60, -20, 90, 130), (TEMPLATE + np.array([-60, -20])).astype(np.float32), 1.0)
    white = faces.align(np.ones((140, 130, 3), np.float32), face)
    assert visible(140, 130, face) == pytest.approx(white.mean(), abs=1e-6)
    assert 0.3 < visible(140, 130, face) < 0.7
