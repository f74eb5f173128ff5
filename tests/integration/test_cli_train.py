"""``nst faces train``: from a folder of classes to an encoder that the gallery uses."""

from __future__ import annotations

import csv
import json
import shutil
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import nstcore as nst
from nstcore import images
from nstcore.errors import ArgumentError
from nstcore.faces import TrainSettings, train_encoder
from nstcore.faces.train_settings import AUGMENTATION

QUICK = ["--no-align", "--side", "16", "--size", "8", "--steps", "6", "--people", "4", "--photos", "3",
         "--evaluate-every", "2", "--warm-up", "1", "--validation", "0.25"]  # fmt: skip


class Outcome(NamedTuple):
    """Of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(run: Any) -> Any:
    """The command, with names for what it gives."""
    return lambda *arguments: Outcome(*run(*arguments))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six classes of four pictures, one of a single picture, one that is empty, and a file that is no picture."""
    rng, root = np.random.default_rng(0), tmp_path / "classes"
    for i in range(8):
        (root / f"class{i}").mkdir(parents=True)
        base = rng.random((4, 4, 3)).repeat(5, 0).repeat(5, 1)
        for j in range({6: 1, 7: 0}.get(i, 4)):
            images.save(root / f"class{i}" / f"{j}.png", np.clip(base + 0.2 * rng.standard_normal(base.shape), 0, 1))
    (root / "class0" / "broken.jpg").write_bytes(b"nothing")
    return root


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--last", "1"], "--last without effect: it belongs to --fine-tune"),
        (["--loss", "contrastive", "--mining", "random"], "--mining without effect: the contrastive loss takes pairs"),
        (["--fine-tune", "--shift", "0.3", "--light", "0"], "--shift, --light without effect: --fine-tune takes"),
        (["--fine-tune", "--size", "9"], "--size without effect: they belong to --from-scratch"),
    ],
)
def test_options_that_change_nothing_are_told(run: Any, tmp_path: Path, options: list[str], words: str) -> None:
    for name in ("a", "b"):  # refused after that: one photograph each
        (tmp_path / "few" / name).mkdir(parents=True)
        images.save(tmp_path / "few" / name / "0.png", np.zeros((16, 16, 3)))
    result = run("faces", "train", tmp_path / "few", "-o", tmp_path / "e.npz", "--no-align", *options)
    assert f"warning: {words}" in result.err.replace("\n", " ")
    plain = run("faces", "train", tmp_path / "few", "-o", tmp_path / "e.npz", "--no-align")
    assert "without effect" not in plain.err


def test_an_encoder_is_trained_written_and_described(run: Any, folder: Path, tmp_path: Path) -> None:
    out, table, plot = tmp_path / "encoder.npz", tmp_path / "run.csv", tmp_path / "run.png"
    result = run("faces", "train", folder, "-o", out, "--history", table, "--plot", plot, *QUICK)
    assert result.code == 0
    assert "warning: left out: class7: an empty class" in result.err
    assert "warning: left out: class0/broken.jpg" in result.err
    assert "warning: 1 class has a single photograph" in result.err
    assert "warning: 2 people with" in result.err
    assert "pairs of one person were kept apart, too few to judge by" in result.err
    assert "warning" not in result.out
    assert "6 steps in" in result.out
    assert "2 people not trained on: equal error rate" in result.out
    lines = [line for line in result.err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1", "2", "4", "6"]
    assert all("EER" in line and "threshold" in line for line in lines[1:])  # a line is one line, however long
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[0]["eer"] == ""
    assert float(rows[1]["eer"]) >= 0
    assert images.load(plot).shape == (540, 1440, 3)
    encoder = nst.faces.load_encoder(out)
    assert (encoder.id, encoder.size, encoder.chip, encoder.norm) == ("embedding_net", 8, 16, "l2")
    assert encoder.calibration.threshold > 0
    assert not encoder.calibration.calibrated
    chips = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    assert encoder.encode(chips, jitter=2).shape == (2, 8)


def test_json_and_a_run_that_goes_on(run: Any, folder: Path, tmp_path: Path) -> None:
    state, first, second = tmp_path / "state.npz", tmp_path / "a.npz", tmp_path / "b.npz"
    facts = json.loads(run("faces", "train", folder, "-o", first, "--checkpoint", state, "--json", *QUICK).out)
    assert facts["steps"] == 6
    assert facts["stopped"] == "steps"
    assert facts["negatives_only"] == 1
    assert facts["validation"]["same"] > 0
    assert (facts["chips"], facts["threshold_from"]) == ("square", "people kept apart")
    assert any("a single photograph" in line for line in facts["warnings"])
    again = run("faces", "train", folder, "-o", second, "--resume", state, "--json", *QUICK)
    assert json.loads(again.out)["steps"] == 6  # there was nothing left to do
    for name, array in nst.weights.load(first).arrays.items():
        np.testing.assert_array_equal(nst.weights.load(second).arrays[name], array)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from-scratch", "--fine-tune"], "expects one of --from-scratch, --fine-tune and --from"),
        (["--mining", "hardest"], "mining to be one of"),
        (["--learning-rate", "0"], "learning_rate above 0"),
        (["--learning-rate", "nan"], "learning_rate above 0, got nan"),
        (["--shift", "1"], r"[augment] expects shift in [0, 1), got 1.0"),
        (["--clip", "-1"], "clip of at least 0"),
        (["--weight-decay", "inf"], "weight_decay of at least 0"),
        (["--validation", "2"], "validation in [0, 1)"),
        (["--plot", "encoder.npz"], "different files for -o, --head, --checkpoint, --history and --plot"),
        (["--side", "50"], "a side of 16 to 256"),
    ],
)
def test_what_means_nothing_is_refused(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: Any, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("faces", "train", folder, *QUICK, *arguments)
    assert result.code == 2
    assert words in result.err
    assert not (tmp_path / "encoder.npz").exists()


def test_one_class_is_no_training(run: Any, tmp_path: Path) -> None:
    (tmp_path / "one" / "anna").mkdir(parents=True)
    images.save(tmp_path / "one" / "anna" / "1.png", np.zeros((8, 8, 3)))
    result = run("faces", "train", tmp_path / "one", "-o", tmp_path / "e.npz", *QUICK)
    assert result.code == 2
    assert "at least two classes, got 1" in result.err


def test_ctrl_c_keeps_what_was_reached(run: Any, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from nstcore.faces import trainer

    whole = trainer.Trainer.step

    def step(self: Any) -> Any:
        if self.steps == 4:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(trainer.Trainer, "step", step)
    result = run("faces", "train", folder, "-o", tmp_path / "e.npz", *QUICK)
    assert result.code == 130
    assert "4 steps in" in result.out
    assert "interrupted, this is what was reached" in result.out
    assert nst.models.embedding_net(weights=tmp_path / "e.npz").threshold is not None


def test_a_checkpoint_that_cannot_be_written_leaves_the_encoder(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The folder goes after the first look: the encoder that was asked for is there, and the error names the file."""
    from nstcore.faces import trainer

    place, whole = tmp_path / "states", trainer.Trainer.step
    place.mkdir()

    def step(self: Any) -> Any:
        if self.steps == 3:
            shutil.rmtree(place)
        return whole(self)

    monkeypatch.setattr(trainer.Trainer, "step", step)
    command = ["faces", "train", folder, "--checkpoint", place / "state.npz", *QUICK]
    result = run(*command, "-o", tmp_path / "e.npz")
    assert result.code == 2
    assert f"[output] {place / 'state.npz'} cannot be written" in result.err
    assert "4 steps in" in result.out
    assert "the checkpoint could not be written, this is what was reached" in result.out
    assert nst.faces.load_encoder(tmp_path / "e.npz").size == 8
    place.mkdir()
    result = run(*command, "-o", place / "e.npz")
    assert (result.code, result.err.count("cannot be written")) == (2, 2)  # both files are told


def test_a_collapse_is_explained(run: Any, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from nstcore.faces import trainer

    flat = lambda pictures, how, rng: np.full(pictures.shape, 0.5, np.float32)  # noqa: E731
    monkeypatch.setattr(trainer, "augment", flat)
    result = run("faces", "train", folder, "-o", tmp_path / "e.npz", *QUICK)
    assert "all encodings have become one point: every loss is stuck at the margin" in result.err


def test_a_gallery_uses_a_trained_encoder_and_no_other(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder.npz"
    run("faces", "train", folder, "-o", out, *QUICK)
    encoder = nst.faces.load_encoder(out)
    with nst.faces.Gallery(tmp_path / "people.db", encoder=encoder) as gallery:
        assert (gallery.model, gallery.digest) == ("embedding_net", encoder.digest)
    assert run("faces", "enroll", "anna", tmp_path / "no.png", "-g", tmp_path / "people.db").code == 2


def test_a_head_that_was_trained_along_goes_into_a_gallery(run: Any, folder: Path, tmp_path: Path) -> None:
    """It names the encoder that it was trained with, and no other takes it."""
    encoder, head, db = tmp_path / "encoder.npz", tmp_path / "head.npz", tmp_path / "people.db"
    command = ["faces", "train", folder, "-o", encoder, *QUICK]
    refused = run(*command, "--head", head)
    assert (refused.code, "expects --head with --loss logistic" in refused.err) == (2, True)
    assert run(*command, "--loss", "logistic", "--head", encoder).code == 2
    assert run(*command, "--loss", "logistic", "--head", head).code == 0
    kept = nst.faces.load_head(head)
    assert kept.encoder == nst.faces.load_encoder(encoder).digest
    result = run("faces", "calibrate", "--head-from", head, "--encoder", encoder, "-g", db)
    assert (result.code, result.err) == (0, "")
    with nst.faces.Gallery(db, encoder=nst.faces.load_encoder(encoder)) as gallery:
        assert gallery.head is not None
        np.testing.assert_array_equal(gallery.head.weight.data, kept.weight.data)
    other = run(
        "faces", "calibrate", "--head-from", head, "-g", tmp_path / "other.db", "--encoder", _other(run, folder)
    )
    assert (other.code, "cannot be compared" in other.err) == (2, True)


def _other(run: Any, folder: Path) -> Path:
    path = folder.parent / "another.npz"
    assert run("faces", "train", folder, "-o", path, *QUICK, "--seed", "3").code == 0
    return path


def test_the_command_has_the_defaults_of_the_function(run: Any, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """One source: what is not given in the command is what `train_encoder` would take."""
    given: dict[str, Any] = {}

    def caught(data: Any, *, callback: Any, progress: Any, **options: Any) -> Any:
        given.update(options)
        raise ArgumentError("[train] caught")

    monkeypatch.setattr(nst.faces, "train_encoder", caught)
    run("faces", "train", folder, "-o", tmp_path / "e.npz")
    here = {name: given.pop(name) for name in list(given) if name in (*TrainSettings.names(), *AUGMENTATION)}
    assert TrainSettings.of(here) == TrainSettings()
    assert set(here) == {*TrainSettings.names(), *AUGMENTATION} - {"augmentation", "margin"}
    assert given == {name: signature(train_encoder).parameters[name].default for name in given}
    assert set(given) == {"start", "last", "align", "size", "side", "checkpoint", "resume"}
    settings = TrainSettings()
    changes = settings.augmentation
    assert (settings.mining, changes.flip, changes.shift, changes.scale, changes.light) == (
        "semi_hard", True, 0.12, 0.2, 0.3,
    )  # fmt: skip
    run("faces", "train", folder, "-o", tmp_path / "e.npz", "--no-flip", "--margin", "0.5", "--weight-decay", "0")
    assert (given["flip"], given["margin"], given["weight_decay"]) == (False, 0.5, 0)


def test_without_people_kept_apart_there_are_lines_and_a_word_about_it(run: Any, folder: Path, tmp_path: Path) -> None:
    result = run("faces", "train", folder, "-o", tmp_path / "e.npz", *QUICK, "--validation", "0")
    assert result.code == 0
    assert [line.split()[1] for line in result.err.splitlines() if line.startswith("step ")] == ["1", "2", "4", "6"]
    assert "warning: nobody was kept apart, so nothing unseen has judged this encoder" in result.err
    assert "from the people trained on" in result.out
    assert nst.faces.load_encoder(tmp_path / "e.npz").calibration.threshold > 0


def test_an_encoder_of_characters_is_used_from_end_to_end(run: Any, folder: Path, tmp_path: Path) -> None:
    """There is no face in any of these pictures, and nobody has to say so again after the training."""
    out, db = tmp_path / "encoder.npz", tmp_path / "signs.db"
    assert run("faces", "train", folder, "-o", out, *QUICK).code == 0
    (folder / "class0" / "broken.jpg").unlink()
    (folder / "class7").rmdir()
    enrolled = run("faces", "enroll", folder, "--encoder", out, "-g", db)
    assert enrolled.code == 0
    assert "25 photographs of 7 people added" in enrolled.out
    picture = folder / "class3" / "2.png"
    who = run("faces", "identify", picture, "--encoder", out, "-g", db, "--json")
    assert who.code == 0
    (face,) = json.loads(who.out)[0]["faces"]
    assert (face["name"], round(face["distance"], 5)) == ("class3", 0)
    same = run("faces", "verify", "class3", picture, "--encoder", out, "-g", db)
    assert (same.code, "same person: distance 0.000" in same.out) == (0, True)
    pair = run("faces", "verify", picture, folder / "class3" / "1.png", "--encoder", out, "--threshold", "2.1")
    assert pair.code == 0
    shot = run("faces", "evaluate", folder, "--encoder", out, "-g", db, "--one-shot", "5", "--json")
    facts = json.loads(shot.out)
    assert (facts["one_shot"]["ways"], facts["one_shot"]["queries"], facts["failures"]) == (5, 24, [])
    assert facts["one_shot"]["accuracy"] > 0.5
    assert run("faces", "list", "class3", "-g", db).code == 0
    drawn = run("faces", "identify", picture, "--encoder", out, "-g", db, "-o", tmp_path / "drawn.png")
    assert (drawn.code, images.load(tmp_path / "drawn.png").shape) == (0, images.load(picture).shape)


def test_an_encoder_of_squares_sees_what_it_was_trained_on(run: Any, folder: Path, tmp_path: Path) -> None:
    from nstcore.faces.photos import read_folder

    out = tmp_path / "encoder.npz"
    run("faces", "train", folder, "-o", out, *QUICK)
    encoder = nst.faces.load_encoder(out)
    chip = read_folder(folder, 16, align=False).pictures[0]
    wide = np.pad(images.load(folder / "class0" / "0.png"), ((0, 0), (7, 7), (0, 0)))
    for source in (folder / "class0" / "0.png", wide):
        ((face, encoding),) = nst.faces.encode_faces(source, encoder=encoder)
        np.testing.assert_allclose(encoding, encoder.encode(chip)[0], atol=1e-6)
    assert face.box == (7.0, 0.0, 27.0, 20.0)
    assert face.landmarks.shape == (0, 2)
    twice = nst.faces.encode_faces(wide, encoder=encoder, jitter=3, seed=1)[0][1]
    np.testing.assert_array_equal(twice, encoder.encode(chip, jitter=3, seed=1)[0])


def test_a_head_of_another_encoder_makes_no_gallery(run: Any, folder: Path, tmp_path: Path) -> None:
    encoder, head, db = tmp_path / "encoder.npz", tmp_path / "head.npz", tmp_path / "new.db"
    run("faces", "train", folder, "-o", encoder, *QUICK, "--loss", "logistic", "--head", head)
    other = run("faces", "calibrate", "--head-from", head, "-g", db, "--encoder", _other(run, folder))
    assert other.code == 2
    assert f"head.npz is the head of the encoder {nst.faces.load_encoder(encoder).digest[:12]} (8 numbers)" in other.err
    assert "another.npz, whose encodings are those of" in other.err
    assert not db.exists()
    assert not list(tmp_path.glob("new.db*"))
