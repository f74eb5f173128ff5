"""The whole transfer on small pictures: that it descends, repeats itself, and keeps what is good."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nstcore as nst
from nstcore import models
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError, DTypeError, ImageError, NonFiniteError
from nstcore.images import load
from nstcore.style import Progress, Result, report, transfer
from nstcore.style.objective import white_noise

Array = NDArray[Any]
SIZE = 48
SHALLOW = {"content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv2_1", "conv3_1"]}


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.fixture(scope="module")
def photo() -> Array:
    return load(picture_path("chelsea"), size=SIZE)


@pytest.fixture(scope="module")
def painting() -> Array:
    return paint("swirl", 40, SIZE)


@pytest.fixture(scope="module")
def other_painting() -> Array:
    return paint("woodcut", SIZE, SIZE)


def totals(result: Result) -> list[float]:
    return [row.total for row in result.history]


@pytest.mark.parametrize("init", ["content", "noise", "style"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "gd"])
def test_the_loss_falls(net: models.VGG, photo: Array, painting: Array, optimizer: str, init: str) -> None:
    result = transfer(photo, painting, net=net, size=SIZE, steps=12, optimizer=optimizer, init=init)
    losses = totals(result)
    assert result.stopped is None
    assert [row.step for row in result.history] == list(range(1, 13))
    assert losses[-1] < 0.75 * losses[0]
    assert result.image.shape == photo.shape
    assert result.image.dtype == np.float32
    assert 0 <= result.image.min() < result.image.max() <= 1
    if optimizer == "lbfgs":
        assert losses == sorted(losses, reverse=True)


def test_gradient_descent_works_from_white_noise(net: models.VGG, photo: Array, painting: Array) -> None:
    """The course's own algorithm: the costs fall, and the picture comes to show the photograph."""
    options: dict[str, Any] = {"optimizer": "gd", "init": "noise", "style_weight": 2e-5, **SHALLOW}
    result = transfer(photo, painting, net=net, size=SIZE, steps=60, **options)
    assert totals(result)[-1] < 0.35 * totals(result)[0]
    assert result.history[-1].content < result.history[0].content
    noise = white_noise(photo.shape, 0)
    before, after = (np.corrcoef(x.mean(2).ravel(), photo.mean(2).ravel())[0, 1] for x in (noise, result.image))
    assert abs(before) < 0.1
    assert after > 0.5


def test_every_optimiser_starts_from_the_same_costs(net: models.VGG, photo: Array, painting: Array) -> None:
    first = {
        optimizer: transfer(photo, painting, net=net, size=SIZE, steps=1, optimizer=optimizer, **SHALLOW).history[0]
        for optimizer in ("lbfgs", "adam", "gd")
    }
    assert first["lbfgs"].total == first["adam"].total == first["gd"].total
    assert first["lbfgs"].content == 0  # the start is the photograph itself
    assert set(first["adam"].style) == set(SHALLOW["style_layers"])


def test_the_costs_of_a_row_are_those_of_the_picture(net: models.VGG, photo: Array, painting: Array) -> None:
    """Costs by hand from the definitions: weighted, divided by sizes, Gram matrices scaled by areas."""
    result = transfer(photo, painting, net=net, size=SIZE, steps=1, init="noise", seed=3, tv_weight=5, **SHALLOW)
    row = result.history[0]
    noise = 0.4 + 0.2 * np.random.default_rng(3).random(photo.shape, dtype=np.float32)
    layers = ["conv2_2", *SHALLOW["style_layers"]]
    found, content, style = (net.features(x, layers) for x in (noise, photo, load(painting, size=SIZE)))
    raw = float(nst.style.content_loss(found["conv2_2"], content["conv2_2"]))
    assert row.content == pytest.approx(raw, rel=1e-5)
    expected = raw / found["conv2_2"].size
    for name in SHALLOW["style_layers"]:
        areas = [x[name].shape[1] * x[name].shape[2] for x in (found, style)]
        cost = float(nst.style.style_loss(found[name], nst.ops.gram(style[name]) * np.float32(areas[0] / areas[1])))
        assert row.style[name] == pytest.approx(cost, rel=1e-4)
        expected += result.settings.style_weight * cost / 3
    assert row.tv == pytest.approx(float(nst.style.total_variation(noise[None])), rel=1e-5)
    assert row.total == pytest.approx(expected + 5 * row.tv / noise.size, rel=1e-4)


def test_one_style_of_a_blend_is_that_style(
    net: models.VGG, photo: Array, painting: Array, other_painting: Array
) -> None:
    options: dict[str, Any] = {"net": net, "size": SIZE, "steps": 3, **SHALLOW}
    alone = transfer(photo, painting, **options)
    first = transfer(photo, [painting, other_painting], blend=[2, 0], **options)
    half = transfer(photo, (painting, other_painting), **options)
    assert np.array_equal(first.image, alone.image)
    assert totals(first) == totals(alone)
    assert not np.array_equal(half.image, alone.image)


def test_styles_may_be_a_generator(net: models.VGG, photo: Array, painting: Array, other_painting: Array) -> None:
    both = [painting, other_painting]
    options: dict[str, Any] = {"net": net, "size": SIZE, "steps": 1, **SHALLOW}
    expected = transfer(photo, both, **options)
    np.testing.assert_array_equal(transfer(photo, (each for each in both), **options).image, expected.image)


def test_a_blend_lies_between_its_styles(net: models.VGG, photo: Array, painting: Array, other_painting: Array) -> None:
    """With half of each, the cost falls to what both styles' Gram matrices together ask for."""
    options: dict[str, Any] = {"net": net, "size": SIZE, "steps": 15, "content_weight": 0, **SHALLOW}
    mixed = transfer(photo, [painting, other_painting], blend=[0.5, 0.5], **options).image
    pure = transfer(photo, painting, **options).image

    def distance(image: Array, style: Array) -> float:
        grams = [nst.ops.gram(net.features(load(x, size=SIZE), ["conv2_1"])["conv2_1"]) for x in (image, style)]
        areas = [image.shape[0] * image.shape[1], style.shape[0] * style.shape[1]]
        return float(np.linalg.norm(grams[0] / areas[0] - grams[1] / areas[1]))

    assert distance(mixed, other_painting) < distance(pure, other_painting)


def test_the_same_seed_gives_the_same_picture(net: models.VGG, photo: Array, painting: Array) -> None:
    options: dict[str, Any] = {"net": net, "size": SIZE, "steps": 3, "init": "noise", **SHALLOW}
    first, again, other = (transfer(photo, painting, seed=seed, **options).image for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_number_of_threads_changes_no_bit(photo: Array, painting: Array, net: models.VGG, optimizer: str) -> None:
    results = []
    for threads in (1, 2, 3):
        nst.set_num_threads(threads)
        results.append(transfer(photo, painting, net=net, size=SIZE, steps=3, optimizer=optimizer))
    for result in results[1:]:
        assert np.array_equal(result.image, results[0].image)
        assert totals(result) == totals(results[0])


def test_the_callback_gets_rows_and_pictures(net: models.VGG, photo: Array, painting: Array) -> None:
    seen: list[tuple[Any, int, Array]] = []

    def callback(progress: Progress) -> None:
        image = progress.image
        seen.append((progress.row, progress.steps, image.copy()))
        image[...] = 0  # a copy: the run does not see this

    result = transfer(photo, painting, net=net, size=SIZE, steps=4, callback=callback, **SHALLOW)
    assert [row for row, _, _ in seen] == result.history
    assert {steps for _, steps, _ in seen} == {4}
    assert np.array_equal(seen[-1][2], result.image)
    assert not np.array_equal(seen[0][2], seen[-1][2])
    assert all(image.min() >= 0 and image.max() <= 1 for _, _, image in seen)
    seconds = [row.seconds for row in result.history]
    assert seconds == sorted(seconds)


def test_an_interrupt_keeps_the_last_picture(net: models.VGG, photo: Array, painting: Array) -> None:
    pictures: list[Array] = []

    def callback(progress: Progress) -> None:
        pictures.append(progress.image)
        if progress.row.step == 3:
            raise KeyboardInterrupt

    result = transfer(photo, painting, net=net, size=SIZE, steps=50, callback=callback, **SHALLOW)
    assert result.stopped == "interrupted"
    assert len(result.history) == 3
    assert np.array_equal(result.image, pictures[-1])
    assert "interrupted, this is what was reached" in report.sentence(report.summary(result))


def test_an_interrupt_within_the_first_step_gives_the_start(
    photo: Array, painting: Array, net: models.VGG, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(nst.optim.LBFGS, "step", interrupt)
    result = transfer(photo, painting, net=net, size=SIZE, **SHALLOW)
    assert (result.stopped, result.history) == ("interrupted", [])
    assert np.array_equal(result.image, photo)
    assert "before the first step" in report.sentence(report.summary(result))


def test_errors_of_the_callback_pass_through(net: models.VGG, photo: Array, painting: Array) -> None:
    def callback(_: Progress) -> None:
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        transfer(photo, painting, net=net, size=SIZE, steps=2, callback=callback, **SHALLOW)


@pytest.mark.parametrize("optimizer", ["adam", "gd"])
def test_a_loss_that_diverges_gives_the_last_good_picture(
    net: models.VGG, photo: Array, painting: Array, optimizer: str
) -> None:
    """A learning rate of 1e12 throws the pixels out of float32's range in the first step."""
    with pytest.raises(NonFiniteError, match=r"not finite at step \d+; a smaller learning rate") as caught:
        transfer(photo, painting, net=net, size=SIZE, steps=40, optimizer=optimizer, learning_rate=1e12, **SHALLOW)
    result = caught.value.result
    assert isinstance(result, Result)
    assert result.stopped == "diverged"
    assert np.isfinite(result.image).all()
    assert all(math.isfinite(row.total) for row in result.history)
    assert np.array_equal(result.image, photo)  # the only picture with a finite loss
    assert "diverged" in report.sentence(report.summary(result))


def test_a_loss_that_cannot_be_computed_at_the_start(net: models.VGG, photo: Array, painting: Array) -> None:
    broken = models.vgg16()
    broken.convolutions["conv2_1"].bias.data = np.full(128, np.nan, np.float32)
    with pytest.raises(NonFiniteError, match="not finite at step 1") as caught:
        transfer(photo, painting, net=broken, size=SIZE, steps=3, **SHALLOW)
    assert isinstance(caught.value.result, Result)
    assert np.array_equal(caught.value.result.image, photo)


@pytest.mark.parametrize("weight", [1e-12, 1e12])
def test_extreme_weights_stay_finite_and_descend(net: models.VGG, photo: Array, painting: Array, weight: float) -> None:
    result = transfer(
        photo, painting, net=net, size=SIZE, steps=6, content_weight=weight, style_weight=weight, **SHALLOW
    )
    assert len(result.history) == 6
    assert totals(result)[-1] < 0.9 * totals(result)[0]


def test_without_style_the_photograph_stays(net: models.VGG, photo: Array, painting: Array) -> None:
    result = transfer(photo, painting, net=net, size=SIZE, steps=5, style_weight=0, **SHALLOW)
    assert result.stopped == "converged"
    assert totals(result) == [0]
    assert result.history[0].style == {}
    assert np.array_equal(result.image, photo)


def test_without_content_only_style_counts(net: models.VGG, photo: Array, painting: Array) -> None:
    result = transfer(photo, painting, net=net, size=SIZE, steps=5, content_weight=0, init="noise", **SHALLOW)
    assert [row.content for row in result.history] == [0] * 5
    assert totals(result)[-1] < totals(result)[0]


def test_total_variation_smoothes(net: models.VGG, photo: Array, painting: Array) -> None:
    options: dict[str, Any] = {"net": net, "size": SIZE, "steps": 8, "init": "noise", **SHALLOW}
    rough, smooth = (transfer(photo, painting, tv_weight=w, **options) for w in (0, 1e9))
    variation = [float(nst.style.total_variation(r.image[None])) for r in (rough, smooth)]
    assert variation[1] < 0.5 * variation[0]
    assert smooth.history[-1].tv < rough.history[-1].tv


def test_pooling_makes_a_difference(photo: Array, painting: Array) -> None:
    images = [transfer(photo, painting, size=SIZE, steps=2, pooling=p, **SHALLOW).image for p in ("max", "avg")]
    assert not np.array_equal(*images)


def test_float64_networks_work(photo: Array, painting: Array) -> None:
    result = transfer(photo, painting, net=models.vgg16(dtype="float64"), size=32, steps=2, **SHALLOW)
    assert result.image.dtype == np.float32
    assert totals(result)[1] < totals(result)[0]


def test_weights_mean_the_same_at_every_size(net: models.VGG) -> None:
    """The weighted costs of one pair of pictures hardly change where the pixels are 2.25 times as many."""
    content, style = load(picture_path("coffee")), paint("autumn", 256, 256)
    small, large = (
        transfer(content, style, net=net, size=size, steps=1, init="style").history[0] for size in (96, 144)
    )
    assert 0.5 < large.total / small.total < 2
    assert large.content / small.content > 1.5  # the raw cost grows with the area


@pytest.mark.parametrize(
    "shape",
    [(SIZE, SIZE), (SIZE, 31, 3), (17, SIZE, 3), (16, 16, 3), (33, 47, 4), (16, SIZE, 1)],
    ids=["grey", "portrait", "landscape", "smallest", "transparent", "one channel"],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_pictures_of_every_kind(net: models.VGG, shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, shape, np.uint8) if dtype == "uint8" else rng.random(shape).astype(dtype)
    style = rng.random((50, 50, 3))
    result = transfer(picture, style, net=net, size=max(shape[:2]), steps=1)
    assert result.image.shape == (*shape[:2], 3)


def test_long_and_thin_pictures(net: models.VGG) -> None:
    rng = np.random.default_rng(0)
    result = transfer(rng.random((16, 300, 3)), rng.random((200, 16, 3)), net=net, size=300, steps=1, **SHALLOW)
    assert result.image.shape == (16, 300, 3)


def test_the_inputs_are_not_changed(net: models.VGG, painting: Array) -> None:
    content = load(picture_path("rocket"), size=SIZE)
    before = content.copy(), painting.copy()
    transfer(content, painting, net=net, size=SIZE, steps=2, **SHALLOW)
    assert np.array_equal(content, before[0])
    assert np.array_equal(painting, before[1])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"content": "/no/such.jpg"}, ImageError, r"/no/such\.jpg does not exist"),
        ({"styles": "/no/such.jpg"}, ImageError, r"/no/such\.jpg does not exist"),
        ({"styles": []}, ArgumentError, "at least one style picture, got none"),
        ({"styles": None}, DTypeError, "a path, a file object, a Pillow image or a NumPy array, got NoneType"),
        ({"content": np.zeros((1, 1, 3))}, ImageError, "1x1 pixels; at least 16x16"),
        ({"content": np.zeros((200, 40, 3)), "max_pixels": 7999}, ImageError, "over the limit of 7,999 pixels"),
        (
            {"content": np.zeros((400, 20, 3)), "size": 64},
            ImageError,
            "photograph has 3x64 pixels at size 64",
        ),
        ({"styles": np.zeros((20, 90, 3)), "size": 64}, ImageError, "painting has 64x14 pixels at size 64"),
        ({"content": np.full((32, 32, 3), 2.0)}, ImageError, r"floats in \[0, 1\]"),
        ({"content_layers": ["conv9_9"]}, ArgumentError, r"no layer 'conv9_9'; it has conv1_1, .*pool5"),
        ({"style_layers": {"relu1": 1.0}}, ArgumentError, r"no layer 'relu1'; it has conv1_1"),
        ({"style_weight": -1.0}, ArgumentError, "style_weight"),
        ({"blend": [1.0, 2.0]}, ArgumentError, "one blend weight a style, got 2 for 1 styles"),
        ({"sharpness": 3}, ArgumentError, "no option 'sharpness'; it has size, steps, start_size"),
    ],
)
def test_what_cannot_work_is_refused_before_any_step(
    net: models.VGG, photo: Array, painting: Array, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    def callback(_: Progress) -> None:
        raise AssertionError("a step was taken")

    options = {"content": photo, "styles": painting, "net": net, "size": SIZE, "callback": callback, **change}
    with pytest.raises(error, match=words):
        transfer(**options)


def test_the_report_of_a_run(net: models.VGG, photo: Array, painting: Array, tmp_path: Any) -> None:
    result = transfer(photo, painting, net=net, size=SIZE, steps=3, **SHALLOW)
    report.write_csv(tmp_path / "losses.csv", result.history)
    lines = (tmp_path / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,total,content,style_conv1_1,style_conv2_1,style_conv3_1,tv,size"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert float(lines[2].split(",")[2]) == pytest.approx(result.history[1].total, rel=1e-8)
    facts = report.summary(result)
    assert (facts["width"], facts["steps"], facts["loss_end"]) == (SIZE, 3, result.history[-1].total)
    for history in (result.history, result.history[:1]):
        drawing = report.draw_losses(history)
        assert drawing.shape == (540, 960, 3)
        assert drawing.dtype == np.uint8
        assert len(np.unique(drawing.reshape(-1, 3), axis=0)) > 20
    with pytest.raises(ArgumentError, match="at least one step"):
        report.draw_losses([])


def test_gradient_descent_continues_bit_for_bit() -> None:
    from nstcore.style.descent import Descent

    def closure_of(x: nst.Tensor) -> Any:
        def closure() -> float:
            loss = ((x * x) * np.array([1.0, 100.0])).sum()
            loss.backward()
            return float(loss.item())

        return closure

    whole = nst.tensor(np.array([3.0, -2.0]), requires_grad=True)
    straight = Descent([whole], 0.1)
    for _ in range(12):
        straight.step(closure_of(whole))
    part = nst.tensor(np.array([3.0, -2.0]), requires_grad=True)
    first = Descent([part], 0.1)
    for _ in range(5):
        first.step(closure_of(part))
    resumed = nst.tensor(part.data, requires_grad=True)
    second = Descent([resumed], 0.5)
    second.load_state_dict(first.state_dict())
    for _ in range(7):
        second.step(closure_of(resumed))
    np.testing.assert_array_equal(resumed.data, whole.data)
