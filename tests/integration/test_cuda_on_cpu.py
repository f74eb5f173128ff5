"""Whole runs through the CUDA kernels on a machine without a GPU, beside the same runs on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import build
from cuda_on_cpu import cupy_stand_in as cupy

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.images import load, resize_to, save
from nstcore.style import Progress, Result, Settings
from nstcore.style.objective import Objective, white_noise
from nstcore.style.tiles import TiledObjective

from .conftest import Run

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="g++ is not installed"),
    pytest.mark.skipif(not build.supported(), reason="the emulator runs on Linux on x86-64"),
]


# The kernels add up in another order, and a pixel whose ReLU or pool winner flips is pushed elsewhere: what holds is
# that nearly all agree to far less than the eye sees (1/255), and none is far off.
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 2e-4, 0.01


def test_style(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command paints a photo of 64 pixels; the picture and the losses are those of the CPU."""
    save("photo.png", load(picture_path("chelsea"), size=64))
    options = ("style", "photo.png", "painting.png", "--size", "64", "--steps", "2", "--optimizer", "adam", "--json")
    totals = {}
    for backend in ("cpu", "cuda-on-cpu"):
        monkeypatch.setenv("NSTCORE_BACKEND", backend)
        code, out, err = run(*options, "-o", f"{backend}.png")
        assert code == 0, err
        totals[backend] = json.loads(out)
    difference = np.abs(load("cpu.png") - load("cuda-on-cpu.png"))
    assert difference.mean() < MEAN_DIFFERENCE
    assert difference.max() <= LARGEST_DIFFERENCE
    for name in ("loss_start", "loss_end"):
        assert totals["cuda-on-cpu"][name] == pytest.approx(totals["cpu"][name], rel=1e-4)


def test_transfer_by_lbfgs() -> None:
    """Three steps on few layers, every picture and history on the host."""
    photo, painting = load(picture_path("chelsea"), size=40), load(picture_path("coffee"), size=40)
    found = {}
    for backend in ("cpu", "cuda-on-cpu"):
        with nst.use_backend(backend):
            found[backend] = nst.style.transfer(
                photo,
                painting,
                size=40,
                steps=3,
                style_layers={"conv1_1": 1.0, "conv2_1": 0.5},
                content_layers=["conv2_2"],
                tv_weight=1.0,
                init="noise",
            )
    here, there = found["cpu"], found["cuda-on-cpu"]
    assert isinstance(there.image, np.ndarray)
    assert len(there.history) == 3
    np.testing.assert_allclose([r.total for r in there.history], [r.total for r in here.history], rtol=1e-3)
    np.testing.assert_allclose(there.image, here.image, atol=LARGEST_DIFFERENCE)


COARSE: dict[str, Any] = {
    "size": 32, "start_size": 24, "steps": 3, "content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv2_1"],
}  # fmt: skip


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "gd"])
def test_a_run_is_saved_and_continued(tmp_path: Path, optimizer: str) -> None:
    """From coarse to fine: interrupted at the second size and continued, the very picture of a run that was not."""
    photo, painting = load(picture_path("chelsea"), size=32), paint("swirl", 24, 32)
    options = {**COARSE, "optimizer": optimizer, "average": 0.0 if optimizer == "lbfgs" else 0.5}

    def run(**more: Any) -> Result:
        return nst.style.transfer(photo, painting, **options, **more)

    def interrupt(progress: Progress) -> None:
        if progress.row.step == 4:
            raise KeyboardInterrupt

    saved = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    here = run()
    with nst.use_backend("cuda-on-cpu"):
        whole = run()
        assert run(callback=interrupt, **saved).stopped == "interrupted"
        continued = run(resume=saved["checkpoint"])
    assert [row.size for row in whole.history] == [24, 24, 24, 32, 32]
    np.testing.assert_array_equal(continued.image, whole.image)
    assert [row.total for row in continued.history] == [row.total for row in whole.history]
    np.testing.assert_allclose(whole.image, here.image, atol=LARGEST_DIFFERENCE)
    with pytest.warns(UserWarning, match="was made on cuda-on-cpu and goes on on cpu"):
        elsewhere = run(resume=saved["checkpoint"])  # what one backend saved, another continues
    np.testing.assert_allclose(elsewhere.image, here.image, atol=LARGEST_DIFFERENCE)


def test_tiles_and_masks() -> None:
    """Costs and gradient of a picture under masks, whole and in tiles, are those of the CPU."""
    photo, paintings = load(picture_path("rocket"), size=100), [paint("swirl", 60, 80), paint("woodcut", 70, 90)]
    left = np.zeros(photo.shape[:2])
    left[:, : photo.shape[1] // 2] = 1
    masks = [left, 1 - 0.5 * left], [None, np.linspace(0, 1, 70 * 90).reshape(70, 90)]
    layers = {"content_layers": ["conv2_1"], "style_layers": ["conv1_1", "conv2_1"]}
    settings = Settings(**layers, tv_weight=10.0)  # type: ignore[arg-type]
    picture = (0.7 * photo + 0.3 * white_noise(photo.shape, 1))[None]
    net, found = nst.models.vgg16(), []
    for backend, kind, options in (
        ("cpu", Objective, {}),
        ("cuda-on-cpu", Objective, {}),
        ("cuda-on-cpu", TiledObjective, {"tile": 64, "keep_content": False}),
        ("cuda-on-cpu", TiledObjective, {"tile": 64}),
    ):
        with nst.use_backend(backend):
            net.to(backend)
            x = nst.Tensor(nst.backend.moved(picture.copy(), backend), requires_grad=True)
            terms = kind(net, photo, paintings, settings, *masks, **options).evaluate(x)  # type: ignore[arg-type]
            found.append((terms, cupy.asnumpy(x.grad)))
    (expected, gradient), *others = found
    for terms, grad in others:
        assert np.linalg.norm(grad - gradient) < 1e-4 * np.linalg.norm(gradient)
        for name in ("total", "content", "style", "variation"):
            assert getattr(terms, name) == pytest.approx(getattr(expected, name), rel=1e-4)


def test_patches(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the same patches, and draws the same pixels that excite the units, in every way it knows."""
    (place / "photos").mkdir()
    for name in ("chelsea", "coffee"):
        save(place / "photos" / f"{name}.png", load(picture_path(name), size=40))
    options = ("--layer", "conv1_2,conv2_1", "--units", "0:2", "--show", "patch,deconv,guided,gradient,occlusion")
    tables, sheets = {}, {}
    for backend in ("cpu", "cuda-on-cpu"):
        monkeypatch.setenv("NSTCORE_BACKEND", backend)
        output = ("--index", f"{backend}.npz", "-o", f"{backend}.png")
        code, out, err = run("patches", "photos", *options, *output, "--cell", "16", "--json")
        assert (code, err) == (0, "")
        tables[backend] = json.loads(out)["layers"]
        sheets[backend] = load(f"{backend}.png")
    for layer, here in tables["cpu"].items():
        for unit, rows in here["units"].items():
            for row, there in zip(rows, tables["cuda-on-cpu"][layer]["units"][unit], strict=True):
                assert there.pop("activation") == pytest.approx(row.pop("activation"), rel=1e-4)
                assert there == row
    assert np.abs(sheets["cpu"] - sheets["cuda-on-cpu"]).mean() < MEAN_DIFFERENCE
    assert np.abs(sheets["cpu"] - sheets["cuda-on-cpu"]).max() <= LARGEST_DIFFERENCE


def test_a_dream() -> None:
    """A unit's own picture, by gradient ascent."""
    net, found = nst.models.vgg16(), {}
    for backend in ("cpu", "cuda-on-cpu"):
        with nst.use_backend(backend):
            found[backend] = nst.visualize.maximize(net, "conv2_1", 3, size=24, steps=3, octaves=1)
    np.testing.assert_allclose(found["cuda-on-cpu"].image, found["cpu"].image, atol=LARGEST_DIFFERENCE)


def test_faces_verify(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds, aligns and compares two faces through the kernels, and answers as on the CPU."""
    portrait = load(picture_path("astronaut"))[:300, 80:380]
    for name, turned in (("a.png", portrait), ("b.png", portrait[:, ::-1])):
        save(name, resize_to(turned, 160, 160))
    launched: list[str] = []
    launch = cupy.RawKernel.__call__
    monkeypatch.setattr(
        cupy.RawKernel, "__call__", lambda self, *a, **more: launched.append(self.name) or launch(self, *a, **more)
    )
    answers = {}
    for backend in ("cpu", "cuda-on-cpu"):
        monkeypatch.setenv("NSTCORE_BACKEND", backend)
        assert not launched
        code, out, err = run("faces", "verify", "a.png", "b.png", "--min-size", "32", "--json")
        assert (code, err) == (0, "")
        answers[backend] = json.loads(out)
    assert {"conv2d_forward_cuda", "max_pool2d_forward_cuda"} <= set(launched)
    here, there = answers["cpu"], answers["cuda-on-cpu"]
    assert there.pop("distance") == pytest.approx(here.pop("distance"), abs=2e-4)
    for name in ("margin", "probability"):
        assert there.pop(name) == pytest.approx(here.pop(name), abs=2e-4)
    assert there == here


@pytest.mark.parametrize("choices", [{"mining": "distance_weighted"}, {"loss": "logistic"}], ids=str)
def test_an_encoder_is_trained(choices: dict[str, str]) -> None:
    """Two steps, and the scores of people who were not trained on, are those of the CPU."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(8), 4)
    pictures = rng.integers(0, 256, (len(labels), 16, 16, 3), np.uint8)
    found = {}
    for backend in ("cpu", "cuda-on-cpu"):
        with nst.use_backend(backend):
            found[backend] = nst.faces.train_encoder(
                pictures, labels, side=16, size=8, steps=2, people=4, photos=2, evaluate_every=2, patience=0,
                warm_up=0, validation=0.25, **choices,
            )  # fmt: skip
    here, there = found["cpu"], found["cuda-on-cpu"]
    assert isinstance(there.net.projection.weight.data, cupy.ndarray)
    np.testing.assert_allclose([r.loss for r in there.history], [r.loss for r in here.history], rtol=1e-3)
    assert there.scores is not None
    assert here.scores is not None
    assert there.scores.auc == pytest.approx(here.scores.auc, abs=0.1)


def test_what_is_measured_of_encodings() -> None:
    """Evaluation, calibration, one-shot identification and a head, of encodings, are those of the CPU."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(12), 3)
    z = rng.standard_normal((12, 8))[labels] + 0.5 * rng.standard_normal((len(labels), 8))
    found = {}
    for backend in ("cpu", "cuda-on-cpu"):
        with nst.use_backend(backend):
            report = nst.faces.calibrate(z, labels, false_accept_rate=0.05)
            measured = nst.faces.evaluate(z, labels, report.calibration, false_accept_rates=(0.05,))
            head = nst.faces.fit_head(z, labels, "e").head
            tables = [report.to_json(), measured.to_json(), nst.faces.one_shot(z, labels, 5).accuracy]
            found[backend] = tables, head.probability(z[:6], z[6:12])
    (here, probabilities), (there, others) = found["cpu"], found["cuda-on-cpu"]
    assert flat(there) == pytest.approx(flat(here), rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(others, probabilities, rtol=1e-3)


def flat(value: Any) -> list[float]:
    """The numbers in lists and tables, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in flat(part)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_encodings_of_faces() -> None:
    """The face encoder gives the same encodings, as arrays of the host."""
    chips = np.random.default_rng(0).random((1, 150, 150, 3), np.float32)
    net = nst.models.face_encoder()
    expected = net.encode(chips)
    with nst.use_backend("cuda-on-cpu"):
        net.to("cuda-on-cpu")
        assert isinstance(net.stem.weight.data, cupy.ndarray)
        np.testing.assert_allclose(net.encode(chips), expected, atol=2e-5 * np.abs(expected).max())
    net.to("cpu")
    np.testing.assert_array_equal(net.encode(chips), expected)
