"""The encoder with its identity, the way from a picture to encodings, and verification of two pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nstcore import faces, images, weights
from nstcore.cli.faces import options
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, ImageError, NoFaceError, SeveralFacesError, ShapeError, WeightsError
from nstcore.faces.decide import verification
from nstcore.faces.encoder import load_encoder
from nstcore.faces.folders import encode_people, people_in, read_pairs
from nstcore.faces.pipeline import MIN_SCORE, encode_faces, encode_one, picture_name

Array = NDArray[Any]
ASTRONAUT = picture_path("astronaut")


@pytest.fixture(scope="module")
def portrait() -> Array:
    return images.load(ASTRONAUT)[:300, 80:380]


@pytest.fixture(scope="module")
def chip(portrait: Array) -> Array:
    (face,) = faces.detect(portrait)
    return np.asarray(faces.align(portrait, face))


def close(a: Array, b: Array) -> float:
    return float(np.linalg.norm(np.asarray(a, float) - np.asarray(b, float)))


# ---- the encoder ----


def test_the_embedded_encoder_is_loaded_once_and_says_who_it_is() -> None:
    encoder, file = load_encoder(), weights.load(weights.embedded("face_encoder"))
    assert load_encoder() is encoder
    assert (encoder.id, encoder.size, encoder.chip, encoder.norm) == ("face_encoder", 128, 150, "none")
    assert encoder.digest == file.arrays_digest


def test_flip_and_jitter_are_means(chip: Array) -> None:
    encoder = load_encoder()
    plain, mirrored = encoder.encode(np.stack([chip, chip[:, ::-1]]))
    flipped = encoder.encode(chip, flip=True)
    assert (flipped.shape, flipped.dtype) == ((1, 128), np.float32)
    np.testing.assert_allclose(flipped[0], (plain + mirrored) / 2, atol=1e-6)
    assert close(plain, mirrored) > 0.01
    jittered = faces.encode(chip, jitter=3, seed=5)
    np.testing.assert_allclose(
        jittered, faces.encode(faces.jittered_chips(chip, 3, seed=5)[0]).mean(0)[None], atol=1e-6
    )
    assert 0.01 < close(jittered[0], plain) < 0.4
    np.testing.assert_array_equal(jittered, faces.encode(chip, jitter=3, seed=5))
    assert close(jittered, faces.encode(chip, jitter=3, seed=6)) > 1e-4


def test_no_chips_have_no_encodings() -> None:
    for how in ({}, {"flip": True}, {"jitter": 2}):
        assert faces.encode(np.zeros((0, 150, 150, 3), np.float32), **how).shape == (0, 128)


@pytest.mark.parametrize(
    ("shape", "how", "error", "words"),
    [
        ((150, 150), {}, ShapeError, "expects chips"),
        ((1, 149, 150, 3), {}, ShapeError, "expects chips"),
        ((150, 150, 3), {"jitter": -1}, ArgumentError, "jitter from 0 to 1000"),
        ((150, 150, 3), {"jitter": 2, "flip": True}, ArgumentError, "flip or jitter, got both"),
    ],
)
def test_what_is_no_chip_or_option_is_refused(
    shape: tuple[int, ...], how: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        faces.encode(np.zeros(shape, np.float32), **how)


@pytest.fixture(scope="module")
def arrays() -> dict[str, Array]:
    file = weights.load(weights.embedded("face_encoder"))
    return {name: np.asarray(values, np.float32) for name, values in file.arrays.items()}


def write(path: Path, arrays: dict[str, Array], **facts: Any) -> Path:
    preprocessing = weights.load(weights.embedded("face_encoder")).preprocessing
    weights.save(path, arrays, {"architecture": "face_encoder", "preprocessing": dict(preprocessing or {}), **facts})
    return path


def test_the_weights_before_they_were_rounded_have_the_same_calibration(tmp_path: Path, arrays: Any) -> None:
    """Half an ulp of float16 away, every weight rounds to the one in the package."""
    moved = {name: np.where(np.abs(a) > 1e-3, a * np.float32(1 + 1e-4), a) for name, a in arrays.items()}
    encoder = load_encoder(write(tmp_path / "float32.npz", moved))
    assert encoder.calibration == load_encoder().calibration
    assert encoder.digest != load_encoder().digest


def test_other_weights_have_a_threshold_but_no_probability(tmp_path: Path, arrays: Any) -> None:
    other = {**arrays, "projection": arrays["projection"] * 2}
    found = load_encoder(write(tmp_path / "other.npz", other, encoding={"threshold": 1.2})).calibration
    assert (found.threshold, found.same, found.different, found.calibrated) == (1.2, 0, 0, False)
    assert found.probability(0.1) == found.probability(2.0) == 0.5
    assert "calibrate" in found.source


@pytest.mark.parametrize(
    "facts", [{"threshold": -1}, {"threshold": "0.6"}, {"norm": "l1"}, {"distance": "cosine"}, {"size": 64}, 7]
)
def test_facts_that_mean_nothing_are_refused(tmp_path: Path, arrays: Any, facts: Any) -> None:
    with pytest.raises(WeightsError, match="facts"):
        load_encoder(write(tmp_path / "strange.npz", arrays, encoding=facts))


def test_another_architecture_is_refused() -> None:
    with pytest.raises(WeightsError, match="expects weights of face_encoder or embedding_net, got vgg16"):
        load_encoder(weights.embedded("vgg16"))


def test_an_encoder_of_unit_length_has_means_of_unit_length() -> None:
    from dataclasses import replace

    encoder = replace(load_encoder(), norm="l2")
    mean = encoder.mean(np.array([[1.0, 0, 0]]), np.array([[0, 1.0, 0]]))
    np.testing.assert_allclose(mean, [[2**-0.5, 2**-0.5, 0]])


# ---- pictures ----


def test_faces_come_with_the_encodings_of_their_chips(portrait: Array, chip: Array) -> None:
    ((face, encoding),) = encode_faces(portrait)
    assert face.score > MIN_SCORE
    np.testing.assert_allclose(encoding, faces.encode(chip)[0], atol=1e-5)
    ((_, mean),) = encode_faces(portrait, jitter=2, seed=1)
    np.testing.assert_allclose(mean, faces.encode(faces.jittered(portrait, face, 2, seed=1)).mean(0), atol=1e-6)
    assert encode_faces(portrait, min_score=1.0) == []


def test_one_face_is_insisted_on(portrait: Array, tmp_path: Path) -> None:
    images.save(tmp_path / "two.png", np.concatenate([portrait, portrait], axis=1))
    words = r"\[verify\] .*two\.png: expects one face, found 2, .*\(\d+, \d+, \d+"
    with pytest.raises(SeveralFacesError, match=words) as error:
        faces.verify(tmp_path / "two.png", portrait)
    assert len(error.value.faces) == 2
    assert str(round(error.value.faces[1].box[0])) in str(error.value)
    with pytest.raises(
        NoFaceError, match=r"\[verify\] .*chelsea\.jpg: expects one face, found none of at least 20 pix"
    ):
        faces.verify(portrait, picture_path("chelsea"))
    with pytest.raises(NoFaceError, match="the first picture"):
        faces.verify(np.zeros((80, 80, 3), np.uint8), portrait)
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        faces.verify(tmp_path / "missing.jpg", portrait)


@pytest.mark.parametrize(
    "options_", [{"min_score": 1.5}, {"min_score": -0.1}, {"min_score": "a"}, {"jitter": 2, "flip": True}]
)
def test_options_are_checked_before_the_picture_is_read(options_: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        encode_one("missing.jpg", **options_)


def test_a_picture_is_called_by_its_file(tmp_path: Path) -> None:
    with open(tmp_path / "a.bin", "wb") as file:
        assert picture_name(file) == str(tmp_path / "a.bin")  # type: ignore[arg-type]
    assert picture_name(tmp_path / "a.jpg") == str(tmp_path / "a.jpg")
    assert picture_name(io.BytesIO()) == picture_name(np.zeros((2, 2, 3), np.uint8)) == "the picture"


def test_verification_of_two_pictures(portrait: Array) -> None:
    answer = faces.verify(portrait, np.ascontiguousarray(portrait[:, ::-1]))
    a, b = (encode_one(p)[1] for p in (portrait, portrait[:, ::-1]))
    assert answer.distance == pytest.approx(close(a, b), rel=1e-6)
    expected = verification(answer.distance, load_encoder().calibration, compared="the second picture")
    assert answer == expected
    assert answer.same
    strict = faces.verify(portrait, np.ascontiguousarray(portrait[:, ::-1]), answer.distance / 2)
    assert (strict.same, strict.threshold) == (False, answer.distance / 2)
    with pytest.raises(ArgumentError, match="threshold above 0"):
        faces.verify("missing.jpg", "missing.jpg", 0)


# ---- folders ----


def test_what_fails_in_a_folder_is_told(portrait: Array, tmp_path: Path) -> None:
    (tmp_path / "eileen").mkdir()
    (tmp_path / "cats").mkdir()
    images.save(tmp_path / "eileen/1.png", portrait)
    images.save(tmp_path / "eileen/two.png", np.concatenate([portrait, images.resize(portrait, 300)], axis=1))
    (tmp_path / "eileen/broken.jpg").write_bytes(b"no picture")
    (tmp_path / "eileen/.hidden").write_bytes(b"")
    images.save(tmp_path / "cats/chelsea.png", images.load(picture_path("chelsea"), size=200))
    seen = []
    found = encode_people(people_in(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert found.people == ("eileen", "eileen")
    assert [path.name for path in found.paths] == ["1.png", "two.png"]
    assert [path.name for path in found.several] == ["two.png"]
    reasons = {path.name: why for path, why in found.failures}
    assert reasons["chelsea.png"] == "no face was found"
    assert set(reasons) == {"chelsea.png", "broken.jpg"}
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_of_several_faces_a_list_means_the_central_one(portrait: Array, tmp_path: Path) -> None:
    """A large face at the left, a smaller one in the middle."""
    large, small = portrait, images.resize(portrait[:, ::-1], 200)
    sheet = np.full((300, 900, 3), 0.5, np.float32)
    sheet[:, :300], sheet[50:250, 350:550] = large, small
    images.save(tmp_path / "sheet.png", sheet)
    first, second = (
        encode_people([("x", tmp_path / "sheet.png")], central=central).encodings[0] for central in (False, True)
    )
    (a, large_encoding), (b, small_encoding) = encode_faces(tmp_path / "sheet.png")
    assert a.width > b.width
    np.testing.assert_array_equal(first, large_encoding)
    np.testing.assert_array_equal(second, small_encoding)


def test_a_list_and_a_folder_that_do_not_fit(tmp_path: Path) -> None:
    from nstcore.faces.folders import pairs_in

    (tmp_path / "pairs.txt").write_text("1\nanna 1 2\nanna 1 bob 1\n")
    assert len(read_pairs(tmp_path / "pairs.txt")) == 2
    with pytest.raises(ArgumentError, match=r"anna: has no file anna_0001\.\* or 1\.\*"):
        pairs_in(tmp_path, tmp_path / "pairs.txt")
    (tmp_path / "anna").mkdir()
    for name in ("1.png", "1.jpg"):
        (tmp_path / "anna" / name).touch()
    with pytest.raises(ArgumentError, match=r"one file 1\.\*, got 2"):
        pairs_in(tmp_path, tmp_path / "pairs.txt")
    with pytest.raises(ArgumentError, match="a folder a person"):
        people_in(tmp_path / "missing")
    with pytest.raises(ArgumentError, match="without any files"):
        people_in(tmp_path / "anna")


def test_the_options_of_the_command_are_those_of_the_package() -> None:
    from nstcore.faces.detect import MIN_SIZE

    assert (options.MIN_SIZE, options.MIN_SCORE, options.MAX_PIXELS) == (MIN_SIZE, MIN_SCORE, images.MAX_PIXELS)
