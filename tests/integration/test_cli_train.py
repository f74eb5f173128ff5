"""``nst faces train``: from a folder of classes to an encoder that the gallery uses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import nstcore as nst
from nstcore import images

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


def test_an_encoder_is_trained_written_and_described(run: Any, folder: Path, tmp_path: Path) -> None:
    out, table, plot = tmp_path / "encoder.npz", tmp_path / "run.csv", tmp_path / "run.png"
    result = run("faces", "train", folder, "-o", out, "--history", table, "--plot", plot, *QUICK)
    assert result.code == 0
    assert "left out: class7: an empty class" in result.out
    assert "left out: class0/broken.jpg" in result.out
    assert "1 classes have a single photograph" in result.out
    assert "6 steps in" in result.out
    assert "2 people not trained on: equal error rate" in result.out
    assert "step 2 " in result.err
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
    again = run("faces", "train", folder, "-o", second, "--resume", state, "--json", *QUICK)
    assert json.loads(again.out)["steps"] == 6  # there was nothing left to do
    for name, array in nst.weights.load(first).arrays.items():
        np.testing.assert_array_equal(nst.weights.load(second).arrays[name], array)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from-scratch", "--fine-tune"], "expects one of --from-scratch, --fine-tune and --from"),
        (["--mining", "hardest"], "mining to be one of"),
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
