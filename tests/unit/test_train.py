"""Training runs: they learn, repeat themselves bit for bit, go on where they stopped, and fail in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import images
from nstcore.errors import ArgumentError, NonFiniteError, WeightsError
from nstcore.faces import TrainSettings, train, train_encoder
from nstcore.faces import train_report as report
from nstcore.faces.augment import Augmentation
from nstcore.faces.scores import score
from nstcore.faces.train import Trained

SHORT: dict[str, Any] = {
    "side": 16, "size": 8, "steps": 6, "people": 4, "photos": 3, "evaluate_every": 2, "patience": 0, "warm_up": 1,
    "validation": 0.25, "learning_rate": 0.003,
}  # fmt: skip


def classes(count: int = 8, photos: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of blobs, a place and colour for each class, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), photos)
    coarse = rng.random((count, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    noisy = coarse[labels] + 0.25 * rng.standard_normal((len(labels), 16, 16, 3))
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8), labels


def weights_of(trained: Trained) -> list[np.ndarray]:
    return list(trained.net.state_dict().values())


def assert_same(one: Trained, two: Trained) -> None:
    for a, b in zip(weights_of(one), weights_of(two), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [[{k: v for k, v in r.to_json().items() if k != "seconds"} for r in t.history] for t in (one, two)]
    assert rows[0] == rows[1]
    assert one.best_step == two.best_step
    assert one.scores == two.scores


@pytest.mark.parametrize("choices", [{"mining": m} for m in ("batch_all", "semi_hard", "batch_hard",
    "distance_weighted", "random")] + [{"loss": "contrastive"}, {"loss": "logistic"}])  # fmt: skip
def test_every_loss_learns_to_tell_new_classes_apart(choices: dict[str, Any]) -> None:
    x, labels = classes(16, 6)
    little = {"shift": 0.06, "scale": 0.1, "light": 0.15}  # of pictures of 16 pixels, in 30 steps
    trained = train_encoder(x, labels, **{**SHORT, "steps": 30, "evaluate_every": 10, **little, **choices})
    assert trained.before is not None
    assert trained.scores is not None
    assert trained.scores.auc > trained.before.auc + 0.02
    assert trained.net.threshold == trained.scores.threshold
    assert (trained.head is not None) == (choices.get("loss") == "logistic")
    losses = [row.loss for row in trained.history]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_same_seed_gives_the_same_encoder_for_any_number_of_threads() -> None:
    x, labels = classes()
    found = []
    for threads in (1, 2, 3):
        nst.set_num_threads(threads)
        found.append(train_encoder(x, labels, **SHORT))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
    other = train_encoder(x, labels, **{**SHORT, "seed": 1})
    assert not np.array_equal(weights_of(found[0])[0], weights_of(other)[0])


@pytest.mark.parametrize("choices", [{"mining": "distance_weighted"}, {"loss": "logistic"}])
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, choices: dict[str, Any]) -> None:
    x, labels = classes()
    state = tmp_path / "state.npz"
    whole = train_encoder(x, labels, **SHORT, **choices)

    def stop(row: Any) -> None:
        if row.step == 3:
            raise KeyboardInterrupt

    part = train_encoder(x, labels, checkpoint=state, callback=stop, **SHORT, **choices)
    assert part.stopped == "interrupted"
    assert len(part.history) == 3
    rest = train_encoder(x, labels, resume=state, **SHORT, **choices)
    assert rest.stopped == "steps"
    assert_same(rest, whole)


def test_a_run_can_start_from_a_trained_encoder_and_says_what_it_did(tmp_path: Path) -> None:
    x, labels = classes()
    first = train_encoder(x, labels, **SHORT)
    first.save(tmp_path / "encoder.npz")
    meta = nst.weights.load(tmp_path / "encoder.npz").meta
    assert meta["encoding"]["threshold"] == first.scores.threshold  # type: ignore[union-attr]
    assert meta["training"]["settings"]["margin"] == 0.2
    assert meta["training"]["best_step"] == first.best_step
    second = train_encoder(x, labels, start=tmp_path / "encoder.npz", **SHORT)
    assert second.before is not None
    assert second.before.eer == first.scores.eer  # type: ignore[union-attr]


def test_the_margin_is_that_of_the_loss() -> None:
    """Of contrastive pairs 2.0: encodings of length 1 that have nothing in common are √2 apart already."""
    margins = {loss: nst.faces.TrainSettings(loss=loss).margin for loss in ("triplet", "contrastive", "logistic")}
    assert margins == {"triplet": 0.2, "contrastive": 2.0, "logistic": 0.2}
    assert nst.faces.TrainSettings(loss="contrastive", margin=0.5).margin == 0.5
    with pytest.raises(ArgumentError, match="margin above 0, got -1"):
        nst.faces.TrainSettings(margin=-1)


def test_it_stops_when_new_people_get_no_better() -> None:
    x, labels = classes()
    trained = train_encoder(x, labels, **{**SHORT, "steps": 200, "patience": 2, "learning_rate": 1e-9})
    assert trained.stopped == "patience"
    assert len(trained.history) <= 10


def test_without_validation_the_last_weights_are_kept_and_the_threshold_is_of_those_trained_on(tmp_path: Path) -> None:
    x, labels = classes()
    trained = train_encoder(x, labels, **{**SHORT, "validation": 0, "steps": 40, "patience": 1, "learning_rate": 1e-9})
    assert (trained.before, trained.scores, trained.validation) == (None, None, ())
    assert (trained.best_step, trained.stopped) == (40, "steps")  # with nobody to judge, nothing stops it early
    assert trained.threshold_from == "people trained on"
    own = score(trained.net.encode(x), labels)
    assert trained.net.threshold == pytest.approx(own.threshold, abs=1e-6)
    trained.save(tmp_path / "encoder.npz")
    calibration = nst.faces.load_encoder(tmp_path / "encoder.npz").calibration
    assert calibration.threshold == trained.net.threshold
    assert "people trained on" in calibration.source
    assert report.UNJUDGED in report.notices(trained)
    assert "from the people trained on" in report.sentence(trained)


def test_people_kept_apart_are_not_trained_on() -> None:
    x, labels = classes(8)
    trained = train_encoder(x, labels, **SHORT)
    assert len(trained.validation) == 2
    changed = x.copy()
    changed[np.isin(labels.astype(str), trained.validation)] = 0
    other = train_encoder(changed, labels, **SHORT)
    assert [r.loss for r in other.history] == [r.loss for r in trained.history]


def test_people_with_one_photograph_are_used_and_counted() -> None:
    x, labels = classes(8, 6)
    labels[-3:] = (20, 21, 22)
    trained = train_encoder(x, labels, **SHORT)
    assert trained.negatives_only == 3


def test_a_collapsed_batch_is_noticed() -> None:
    x, labels = classes()
    flat = np.full_like(x, 128)
    still = nst.faces.Augmentation(False, 0, 0, 0)
    trained = train_encoder(flat, labels, augmentation=still, **{**SHORT, "validation": 0})
    assert all(row.collapsed for row in trained.history)
    assert trained.history[0].loss == pytest.approx(0.2, abs=1e-3)


def test_nan_in_weights_is_refused_before_the_first_step(tmp_path: Path) -> None:
    net = nst.models.embedding_net(8, 16)
    net.projection.weight.data[0, 0, 0, 3] = np.nan
    net.save(tmp_path / "nan.npz")
    x, labels = classes()
    with pytest.raises(
        WeightsError, match=r"\[train\] expects finite weights, got NaN or infinity in projection.weight"
    ):
        train_encoder(x, labels, start=tmp_path / "nan.npz", **SHORT)


def test_a_loss_that_is_not_finite_keeps_the_state_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from nstcore.faces import trainer

    x, labels = classes()
    good = trainer.augment
    count = 0

    def broken(pictures: Any, how: Any, rng: Any) -> Any:
        nonlocal count
        count += 1
        found = good(pictures, how, rng)
        return found if count < 4 else np.full_like(found, np.nan)

    monkeypatch.setattr(trainer, "augment", broken)
    with pytest.raises(NonFiniteError, match=r"\[train\] step 4: the loss is nan; the state before it stays") as caught:
        train_encoder(x, labels, **SHORT)
    reached = caught.value.result
    assert isinstance(reached, Trained)
    assert len(reached.history) == 3
    assert all(np.isfinite(a).all() for a in weights_of(reached))
    monkeypatch.setattr(trainer, "augment", good)
    three = train_encoder(x, labels, callback=_stop_at(3), **SHORT)
    assert_same(three, reached)


def _stop_at(step: int) -> Any:
    def stop(row: Any) -> None:
        if row.step == step:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"loss": "softmax"}, "loss to be one of triplet, contrastive, logistic"),
        ({"mining": "hardest"}, "mining to be one of batch_all"),
        ({"steps": 0}, "steps as a whole number of at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate above 0, got -1.0"),
        ({"learning_rate": 0}, "learning_rate above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate above 0, got nan"),
        ({"learning_rate": "fast"}, "learning_rate above 0, got 'fast'"),
        ({"margin": 0.0}, "margin above 0"),
        ({"weight_decay": -1}, "weight_decay of at least 0"),
        ({"clip": float("inf")}, "clip of at least 0"),
        ({"clip": None}, "clip of at least 0, got None"),
        ({"validation": 1.0}, r"validation in \[0, 1\)"),
        ({"validation": float("nan")}, r"validation in \[0, 1\), got nan"),
        ({"validation": True}, r"validation in \[0, 1\), got True"),
        ({"steps": 2.0}, "steps as a whole number of at least 1, got 2.0"),
        ({"seed": "one"}, "seed as a whole number"),
        ({"augmentation": 0.1}, "augmentation as an Augmentation, got 0.1"),
        ({"mining": ["random"]}, r"mining to be one of .*, got \['random'\]"),
        ({"align": "yes"}, "align as True, False or None, got 'yes'"),
        ({"epochs": 3}, "has no choice 'epochs'; it has loss, mining"),
        ({"validation": 0.9}, "at least 9 classes with two photographs, 7 of them to validate, got 8"),
    ],
)
def test_choices_are_checked(choices: dict[str, Any], words: str) -> None:
    x, labels = classes()
    with pytest.raises(ArgumentError, match=rf"^\[train\] .*{words}"):
        train_encoder(x, labels, **{**SHORT, **choices})


def test_labels_beside_a_folder_or_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="labels beside pictures, got none"):
        train_encoder(classes()[0], **SHORT)
    with pytest.raises(ArgumentError, match="a folder's classes are its folders"):
        train_encoder(tmp_path, [1, 2], **SHORT)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    x, labels = classes(6, 4)
    for i, (picture, label) in enumerate(zip(x, labels, strict=True)):
        folder = tmp_path / f"class{label}"
        folder.mkdir(exist_ok=True)
        images.save(folder / f"{i}.png", picture)
    trained = train_encoder(tmp_path, align=False, **SHORT)
    assert set(trained.validation) <= {f"class{i}" for i in range(6)}
    arrays = train_encoder(x, labels, **SHORT)
    assert_same(trained, arrays)


def test_the_face_encoder_is_fine_tuned_in_its_last_layers_alone() -> None:
    x, labels = classes(5, 3)
    trained = train_encoder(x, labels, start="fine-tune", last=1, **{**SHORT, "steps": 2, "people": 3, "photos": 2})
    before, after = nst.models.face_encoder().state_dict(), trained.net.state_dict()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed in (["projection"], [])
    assert trained.before is not None
    assert trained.net.encode(np.zeros((1, 150, 150, 3), np.uint8)).shape == (1, 128)


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"steps": np.int64(9), "seed": np.uint8(3), "learning_rate": np.float32(0.5), "clip": np.int32(2)}
    settings = TrainSettings.of({**given, "shift": np.float64(0.25), "flip": np.bool_(False)})
    assert (settings.steps, settings.seed, settings.learning_rate, settings.clip) == (9, 3, 0.5, 2.0)
    assert settings.augmentation == Augmentation(flip=False, shift=0.25)
    assert {type(v) for v in settings.to_json().values()} <= {str, int, float, dict}


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"shift": 1.0}, r"shift in \[0, 1\), got 1.0"),
        ({"scale": float("nan")}, r"scale in \[0, 1\), got nan"),
        ({"light": "bright"}, r"light in \[0, 1\), got 'bright'"),
        ({"flip": 1}, "flip as True or False, got 1"),
    ],
)
def test_changes_of_pictures_are_checked(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[augment\] expects {words}"):
        train_encoder(*classes(), **SHORT, **choices)


def test_changes_of_pictures_can_be_chosen_one_by_one() -> None:
    x, labels = classes()
    one = train_encoder(x, labels, **SHORT, flip=False, light=0.0)
    two = train_encoder(x, labels, **SHORT, augmentation=Augmentation(flip=False, light=0.0))
    assert_same(one, two)
    assert one.settings.augmentation == Augmentation(False, 0.12, 0.2, 0.0)


def test_only_people_with_two_photographs_are_kept_apart() -> None:
    """Sixty people with one photograph would else make up the share that is asked for."""
    x, labels = classes(70, 3)
    keep = np.sort(np.concatenate([np.flatnonzero(labels < 10), 3 * np.arange(10, 70)]))
    trained = train_encoder(x[keep], labels[keep], **SHORT)
    assert len(trained.validation) == 2  # a quarter of ten, and not of seventy
    assert all(int(name) < 10 for name in trained.validation)
    assert trained.scores is not None
    assert trained.scores.same == 6


def test_too_few_people_to_judge_are_said_to_be_too_few() -> None:
    trained = train_encoder(*classes(8, 6), **SHORT)
    assert any(line.startswith("2 people with 30 pairs of one person were kept") for line in report.notices(trained))
    many = train_encoder(*classes(24, 4), **SHORT)
    assert len(many.validation) == 6
    assert not [line for line in report.notices(many) if "too few" in line]


def test_weights_of_the_start_are_kept_only_where_they_are_better_and_that_is_said(tmp_path: Path) -> None:
    """Two people in black and white are told apart by any network: then the trained weights count."""
    x = np.zeros((32, 16, 16, 3), np.uint8)
    labels = np.repeat(np.arange(8), 4)
    for i in range(8):
        x[labels == i, :, : 2 * i + 1] = 255
    same = Augmentation(False, 0, 0, 0)
    trained = train_encoder(x, labels, **SHORT, augmentation=same)
    assert trained.before is not None
    assert trained.before.eer == 0
    assert trained.best_step > 0
    trained.save(tmp_path / "encoder.npz")
    again = train_encoder(x, labels, start=tmp_path / "encoder.npz", **SHORT, augmentation=same)
    assert again.best_step == 0  # these were trained: they stay, as nothing better came
    assert report.NO_BETTER in report.notices(again)


def test_the_untrained_network_is_never_the_result_of_a_run_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept apart are two people whom chance tells apart better than training does: the first look counts."""
    x, labels = classes(8, 6)
    start = nst.models.embedding_net(8, 16, seed=0).state_dict()
    found, looks = train.score, []

    def worse(z: np.ndarray, who: np.ndarray) -> Any:
        looks.append(1)
        return replace(found(z, who), eer=0.05 * len(looks), auc=1 - 0.05 * len(looks))

    monkeypatch.setattr(train, "score", worse)
    trained = train_encoder(x, labels, **SHORT)
    assert (trained.best_step, trained.scores.eer) == (2, 0.1)  # type: ignore[union-attr]
    assert report.NOTHING_LEARNT in report.notices(trained)
    assert not np.array_equal(trained.net.state_dict()["projection.weight"], start["projection.weight"])


@pytest.mark.parametrize("start", [None, 3])
def test_a_start_that_is_no_name_is_refused(start: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^\[train\] expects start as scratch, fine-tune, or the file"):
        train_encoder(*classes(), start=start, **SHORT)


def test_a_run_that_ends_before_the_first_look_keeps_what_was_reached() -> None:
    x, labels = classes(8, 6)

    def stop(row: Any) -> None:
        if row.step == 3:
            raise KeyboardInterrupt

    settings = {**SHORT, "evaluate_every": 5}
    part = train_encoder(x, labels, callback=stop, **settings)
    assert (part.stopped, part.best_step, len(part.history)) == ("interrupted", 3, 3)
    assert part.scores != part.before
    assert part.scores is not None
    assert part.net.threshold == part.scores.threshold


def test_people_of_an_earlier_training_are_not_kept_apart_in_a_later_one(tmp_path: Path) -> None:
    x, labels = classes(12, 4)
    first = train_encoder(x, labels, **SHORT)
    first.save(tmp_path / "encoder.npz")
    assert first.photographs is not None
    assert len(first.photographs) == 4 * 9
    for seed in range(1, 5):
        later = train_encoder(x, labels, start=tmp_path / "encoder.npz", **{**SHORT, "seed": seed})
        assert set(later.validation) <= set(first.validation)
        assert later.photographs is not None
        assert set(later.photographs) >= set(first.photographs)
    few = np.isin(labels.astype(str), first.validation[1:], invert=True)
    with pytest.raises(ArgumentError, match="that the start was not trained on, to validate, got 1 of 10"):
        train_encoder(x[few], labels[few], start=tmp_path / "encoder.npz", **SHORT)


def test_a_start_that_does_not_say_what_it_was_trained_on_is_told(tmp_path: Path) -> None:
    net = nst.models.embedding_net(8, 16)
    net.save(tmp_path / "net.npz")
    trained = train_encoder(*classes(), start=tmp_path / "net.npz", **SHORT)
    assert trained.photographs is None
    assert report.NOT_NOTED in report.notices(trained)
    assert report.NOT_NOTED not in report.notices(train_encoder(*classes(), **SHORT))


def test_the_encoder_states_what_it_was_trained_on(tmp_path: Path) -> None:
    x, labels = classes()
    for align, chips in ((None, "square"), (False, "square"), (True, "face")):
        train_encoder(x, labels, align=align, **SHORT).save(tmp_path / "encoder.npz")
        assert nst.weights.load(tmp_path / "encoder.npz").meta["encoding"]["chips"] == chips
        assert nst.faces.load_encoder(tmp_path / "encoder.npz").chips == chips
    later = train_encoder(x, labels, start=tmp_path / "encoder.npz", **{**SHORT, "validation": 0})
    assert later.net.chips == "face"
    assert nst.faces.load_encoder().chips == "face"


def test_a_file_that_states_other_chips_is_refused(tmp_path: Path) -> None:
    net = nst.models.embedding_net(8, 16)
    net.chips = "circle"
    net.save(tmp_path / "net.npz")
    with pytest.raises(WeightsError, match=r"net\.npz: .*expects chips of face or square, got 'circle'"):
        nst.models.embedding_net(weights=tmp_path / "net.npz")


def test_a_fine_tuned_encoder_can_be_gone_on_from(tmp_path: Path) -> None:
    x, labels = classes(5, 3)
    choices = {**SHORT, "steps": 1, "people": 3, "photos": 2, "validation": 0}
    first = train_encoder(x, labels, start="fine-tune", last=1, **choices)
    first.save(tmp_path / "tuned.npz")
    encoder = nst.faces.load_encoder(tmp_path / "tuned.npz")
    assert (encoder.id, encoder.chips) == ("face_encoder", "square")
    second = train_encoder(x, labels, start=tmp_path / "tuned.npz", last=1, **choices)
    assert not np.array_equal(second.net.projection.data, first.net.projection.data)


def test_a_start_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.npz: there is no such file; the start is scratch, fine-tune, or"):
        train_encoder(*classes(), start=tmp_path / "none.npz", **SHORT)
    (tmp_path / "torn.npz").write_bytes(b"PK torn")
    with pytest.raises(WeightsError, match=r"torn\.npz: .*; take another copy, or make it again with nst faces train"):
        train_encoder(*classes(), start=tmp_path / "torn.npz", **SHORT)
    nst.faces.VerificationHead(8).save(tmp_path / "head.npz")
    with pytest.raises(WeightsError, match=r"expects an encoder, .* to go on from, got verification_head"):
        train_encoder(*classes(), start=tmp_path / "head.npz", **SHORT)


def test_the_drawing_begins_with_the_untrained_network() -> None:
    trained = train_encoder(*classes(), **SHORT)
    with_start, without = report.draw(trained.history, trained.before), report.draw(trained.history)
    assert with_start.shape == without.shape == (540, 1440, 3)
    assert trained.before is not None
    worst = replace(trained.before, eer=0.9, one_shot=0.1)
    changed = report.draw(trained.history, worst) != with_start
    assert changed[40:480, 810:1240].any()  # the errors, whose axis reaches up to the start's
    assert not changed[40:480, 90:560].any()
