"""Faces that stay recognisable: the distance between encodings as a cost of the picture."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nstcore import faces, models
from nstcore.cli import main
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError, ImageError
from nstcore.images import load, resize, save
from nstcore.style import Progress, Settings, plan_transfer, transfer
from nstcore.style.faces_term import VIEWS, Faces
from nstcore.style.plan import Way

Array = NDArray[Any]
OPTIONS: dict[str, Any] = {
    "size": 96, "start_size": 48, "steps": 6, "content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv3_1"],
    "keep_face": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.fixture(scope="module")
def portrait() -> Array:
    """An astronaut: a face of 33 pixels across."""
    return np.ascontiguousarray(load(picture_path("astronaut"), size=144)[:96, 24:88])


@pytest.fixture(scope="module")
def painting() -> Array:
    return paint("swirl", 40, 48)


def found(photo: Array, dtype: Any = np.float32) -> Faces:
    kept = Faces.of(photo, photo, dtype)
    assert kept is not None
    return kept


def test_the_gradient_is_that_of_the_distance(portrait: Array) -> None:
    """Along the gradient itself, against central differences in float64."""
    kept = found(portrait, np.float64)
    term = kept.term(portrait, 3.0)
    assert len(term) == 1
    rng = np.random.default_rng(0)
    pixels = np.clip(portrait + rng.normal(0, 0.05, portrait.shape), 0, 1)[None]
    grad = np.ones_like(pixels)
    cost = term.add(pixels, grad)
    grad -= 1
    plain = np.sum((kept.net.encode(faces.align(pixels[0], kept.faces)) - kept.encodings) ** 2)
    assert 0.5 * plain < cost < 3 * plain
    along, step = grad / np.linalg.norm(grad), 1e-7
    slope = 3.0 * (term.add(pixels + step * along, None) - term.add(pixels - step * along, None)) / (2 * step)
    assert slope == pytest.approx(float(np.sum(grad * along)), rel=1e-5)


def test_the_photograph_itself_costs_nothing(portrait: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen as it is; and little where it is turned, scaled, moved and mirrored."""
    assert found(portrait).term(portrait, 1.0).add(portrait[None], None) < 0.15
    monkeypatch.setattr("nstcore.style.faces_term.VIEWS", VIEWS[:1])
    grad = np.zeros_like(portrait[None])
    assert found(portrait).term(portrait, 1.0).add(portrait[None], grad) < 1e-9
    assert np.abs(grad).max() < 1e-4


def test_a_face_that_is_too_small_at_a_size_is_left_out_there(portrait: Array) -> None:
    kept = found(portrait)
    assert [len(kept.term(resize(portrait, size), 1.0)) for size in (24, 96)] == [0, 1]


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "average": 0.9}, {"colors": "luminance"}])
def test_a_kept_face_stays_closer(net: models.VGG, portrait: Array, painting: Array, options: dict[str, Any]) -> None:
    options = {**OPTIONS, **options, "net": net, "steps": 10, "face_weight": 1e5}
    kept = transfer(portrait, painting, **options)
    without = transfer(portrait, painting, **{**options, "keep_face": False})
    assert without.faces == []
    assert [list(row.extra) for row in kept.history] == [["faces"]] * len(kept.history)
    assert np.isfinite(kept.image).all()
    assert np.abs(kept.image - portrait).mean() > 0.02
    before, after = (found(portrait).distances(result.image)[0] for result in (without, kept))
    assert after < 0.7 * before
    if "colors" not in options:
        assert kept.faces == pytest.approx([after], abs=1e-5)


def test_it_is_the_same_in_tiles(
    net: models.VGG, portrait: Array, painting: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS, "net": net, "start_size": 96, "steps": 1, "optimizer": "gd"}
    whole = transfer(portrait, painting, **options)
    monkeypatch.setattr("nstcore.style.run.choose", lambda *_: Way(tile=64, keep_content=False))
    parted = transfer(portrait, painting, **options)
    np.testing.assert_allclose(parted.image, whole.image, atol=1e-5)
    assert parted.history[0].extra == whole.history[0].extra
    assert parted.history[0].total == pytest.approx(whole.history[0].total, rel=1e-5)


@pytest.mark.parametrize("step", [3, 8])
def test_it_continues_bit_for_bit(net: models.VGG, portrait: Array, painting: Array, tmp_path: Path, step: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.row.step == step:
            raise KeyboardInterrupt

    options = {**OPTIONS, "net": net}
    whole = transfer(portrait, painting, **options)
    part = transfer(portrait, painting, callback=stop, checkpoint=tmp_path / "run.npz", **options)
    assert len(part.history) == step
    rest = transfer(portrait, painting, resume=tmp_path / "run.npz", **options)
    assert np.array_equal(rest.image, whole.image)
    rows = [[dataclasses.replace(row, seconds=0) for row in r.history] for r in (rest, whole)]
    assert rows[0] == rows[1]
    assert rest.faces == whole.faces


def test_a_photograph_without_a_face_is_refused(painting: Array, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(ImageError, match=r"^\[style\] keep_face found no face .* at size 96; "):
        transfer(load(picture_path("coffee"), size=96), painting, **OPTIONS)
    save(tmp_path / "painting.png", painting)
    out = tmp_path / "out.png"
    arguments = [str(picture_path("coffee")), str(tmp_path / "painting.png"), "-o", str(out), "--size", "64"]
    assert main(["style", *arguments, "--keep-face"]) == 2
    assert "found no face" in capsys.readouterr().err
    assert not out.exists()


def test_a_face_too_small_to_be_recognised_is_refused(painting: Array) -> None:
    """Measured by the photograph as it is, not by what is left of it at the size of the run."""
    photo = np.ascontiguousarray(load(picture_path("astronaut"))[:384, 48:432])
    assert Faces.of(photo, photo).clear(resize(photo, 192)) is not None  # type: ignore[union-attr]
    assert Faces.of(photo, photo).clear(resize(photo, 48)) is None  # type: ignore[union-attr]
    with pytest.raises(ImageError, match=r"no face that the photograph would be recognised by at size 48"):
        transfer(photo, painting, **{**OPTIONS, "size": 48})


def test_the_face_is_held_to_the_photograph_in_full(net: models.VGG, painting: Array) -> None:
    """The distance at the end is that to the large photograph."""
    photo = np.ascontiguousarray(load(picture_path("astronaut"))[:256, 96:352])
    result = transfer(photo, painting, **{**OPTIONS, "net": net, "steps": 3})
    face = Faces.of(photo, photo)
    assert face is not None
    assert result.faces == pytest.approx(face.distances(result.image), abs=1e-5)


def test_what_it_may_be_told() -> None:
    with pytest.raises(ArgumentError, match=r"keep_face as True or False, got 3"):
        Settings(keep_face=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"face_weight as a number from 0"):
        Settings(face_weight=-1)


def test_the_plan_counts_it(net: models.VGG, portrait: Array, painting: Array) -> None:
    """Its network is in the memory of the program by then, and its time is measured."""
    options = {**OPTIONS, "net": net}
    with_face = plan_transfer(portrait, painting, **options)
    without = plan_transfer(portrait, painting, **{**options, "keep_face": False})
    assert with_face.seconds > without.seconds
    with pytest.raises(ImageError, match="found no face"):
        plan_transfer(painting, painting, **options)


MEASURE = """
import numpy as np
from nstcore.demo import picture_path
from nstcore.images import load
from nstcore.models import vgg16
from nstcore.style import plan_transfer, transfer

photo = np.ascontiguousarray(load(picture_path("astronaut"))[:256, 96:352])
options = {"size": 192, "start_size": 192, "steps": 1, "net": vgg16(), "optimizer": "adam", "keep_face": True}
planned = plan_transfer(photo, photo, **options).peak
transfer(photo, photo, **options)
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
print(planned, peak)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_the_peak_is_as_planned() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    planned, peak = map(int, done.stdout.split())
    assert 0.9 < planned / peak < 1.1


def test_the_command_says_how_far_the_faces_are(portrait: Array, painting: Array, tmp_path: Path, capsys: Any) -> None:
    save(tmp_path / "a.png", portrait)
    save(tmp_path / "painting.png", painting)
    quick = ["--size", "96", "--steps", "2", "--style-layers", "conv1_1", "--content-layers", "conv2_2"]
    files = [str(tmp_path / name) for name in ("a.png", "painting.png", "out.png", "costs.csv")]
    assert main(["style", *files[:2], "-o", files[2], "--history", files[3], "--keep-face", *quick]) == 0
    assert "; faces at 0." in capsys.readouterr().out
    assert Path(files[3]).read_text().splitlines()[0].endswith(",size,faces")
