"""`nst faces verify`, `identify`, `calibrate` and `evaluate`: what they print and write, and their exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nstcore.demo import picture_path
from nstcore.faces import Calibration, Gallery, VerificationHead, encode_faces, load_encoder, verify
from nstcore.images import load, resize_to, save

from .conftest import ROOT, Run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A portrait, two others of the same face, a cat, what is no picture, and a gallery; the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NSTCORE_GALLERY", raising=False)
    portrait = load(picture_path("astronaut"))[:300, 80:380]
    save(tmp_path / "a.png", portrait)
    save(tmp_path / "b.png", portrait[:, ::-1])
    save(tmp_path / "two.png", np.concatenate([portrait, portrait[:, ::-1]], axis=1))
    save(tmp_path / "cat.png", load(picture_path("chelsea"), size=150))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with Gallery(tmp_path / "people.db") as gallery:
        gallery.enroll("Zoë [x]", tmp_path / "a.png", check_quality=False)
    return tmp_path


@pytest.fixture
def people(place: Path) -> Path:
    """Folders of four "people": one face, squeezed and stretched until the encoder takes it for somebody else's."""
    portrait = load(place / "a.png")
    for name, height, width in (("p1", 300, 300), ("p2", 300, 190), ("p3", 190, 300), ("p4", 260, 140)):
        (place / "folder" / name).mkdir(parents=True)
        shape = resize_to(portrait, height, width)
        for number, light in enumerate((1.0, 0.8), 1):
            save(place / "folder" / name / f"{number}.png", shape * light)
    return place / "folder"


def in_a_terminal(*arguments: str) -> str:
    """What the command shows on a terminal of 80 columns, without colours."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nstcore.cli", *arguments]
    process = subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE, env=environment)
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # its end
        pass
    os.close(master)
    process.communicate()
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())


# ---- verify ----


def test_verify_two_pictures(place: Path, run: Run) -> None:
    code, out, err = run("faces", "verify", "a.png", "b.png")
    assert (code, err) == (0, "")
    pattern = (
        r"same person: distance 0\.\d{3}, threshold 0\.560, margin \+0\.\d{3}, probability [>\d.]+% \(uncalibrated\); "
        r"compared with b\.png\n"
    )
    assert re.fullmatch(pattern, out), out
    code, out, _ = run("faces", "verify", "a.png", "b.png", "--threshold", "0.001", "--json")
    facts = json.loads(out)
    assert (code, facts["same"], facts["threshold"], facts["a"], facts["b"]) == (1, False, 0.001, "a.png", "b.png")
    assert facts["margin"] == pytest.approx(0.001 - facts["distance"])
    flipped = json.loads(run("faces", "verify", "a.png", "b.png", "--flip", "--json")[1])
    assert flipped["distance"] < facts["distance"] / 2  # means over mirror images hardly differ


def test_verify_a_name(place: Path, run: Run) -> None:
    code, out, _ = run("faces", "verify", "Zoë [x]", "b.png")
    assert (code, out.rpartition("; ")[2]) == (0, "compared with Zoë [x] (1 photograph)\n")
    code, out, _ = run("faces", "verify", "Zoë [x]", "b.png", "-g", "people.db", "-t", "0.001")
    assert (code, out.partition(":")[0]) == (1, "different people")
    (place / "Zoë [x]").write_bytes((place / "cat.png").read_bytes())  # a file of that name: the option decides
    assert run("faces", "verify", "Zoë [x]", "b.png", "--gallery", "people.db")[0] == 0
    assert run("faces", "verify", "Zoë [x]", "b.png")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.png", "cat.png"), r"\[verify\] cat\.png: expects one face, found none"),
        (("two.png", "a.png"), r"\[verify\] two\.png: expects one face, found 2, from the largest: \(\d+, \d+, \d+, "),
        (("a.png", "broken.jpg"), r"broken\.jpg"),
        (("nobody", "a.png"), "nobody is called 'nobody'"),
        (("a.png", "b.png", "-t", "0"), "threshold above 0"),
        (("a.png", "b.png", "--flip", "--jitter", "3"), "flip or jitter"),
        (("a.png", "b.png", "--min-score", "2"), "min_score in"),
    ],
)  # fmt: skip
def test_what_cannot_be_verified(place: Path, run: Run, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run("faces", "verify", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(words, err), err


def test_without_a_gallery_a_missing_picture_is_a_missing_picture(place: Path, run: Run) -> None:
    (place / "people.db").unlink()
    assert "missing.png does not exist" in run("faces", "verify", "missing.png", "a.png")[2]


def test_two_pictures_are_judged_by_the_gallery(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by the option or the variable, or simply there; an encoder of one's own is not held against the last."""
    own = Calibration(0.001, 50.0, -10.0, True, 9, 9, "made up", 0.01)
    with Gallery("people.db") as gallery:
        gallery.set_calibration(own)
    os.rename("people.db", "cal.db")
    assert run("faces", "verify", "a.png", "b.png")[0] == 0
    different = run("faces", "verify", "a.png", "b.png", "-g", "cal.db")
    assert (different[0], "threshold 0.001" in different[1], "(calibrated)" in different[1]) == (1, True, True)
    monkeypatch.setenv("NSTCORE_GALLERY", "cal.db")
    assert run("faces", "verify", "a.png", "b.png") == different
    monkeypatch.delenv("NSTCORE_GALLERY")
    os.rename("cal.db", "people.db")
    assert run("faces", "verify", "a.png", "b.png") == different
    assert not verify("a.png", "b.png", calibration=own).same


def test_what_a_may_have_meant_is_said(place: Path, run: Run) -> None:
    assert "and there is no file of that name" in run("faces", "verify", "missing.png", "a.png")[2]
    assert run("faces", "verify", "", "a.png")[::2] == (2, _empty())


def _empty() -> str:
    return "error: [verify] expects A as a picture or a name in the gallery, got an empty text\n"


# ---- exit codes ----


@pytest.mark.parametrize("command", [("verify", "a.png", "cat-as-b.png"), ("identify", "a.png"), ("detect", "a.png")])
def test_a_closed_pipe_is_no_answer(place: Path, command: tuple[str, ...]) -> None:
    """Whose output nobody reads has not said "the same person"."""
    os.rename("b.png", "cat-as-b.png")
    reading, writing = os.pipe()
    os.close(reading)
    process = [sys.executable, "-m", "nstcore.cli", "faces", *command]
    done = subprocess.run(process, stdout=writing, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_closed_output_leaves_the_answer(place: Path) -> None:
    """Closed from the start, as by >&-: the exit code still is the answer."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for threshold, code in (("0.56", 0), ("0.001", 1)):
        command = f"{sys.executable} -m nstcore.cli faces verify a.png b.png -t {threshold} >&-"
        done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, env=environment)
        assert (done.returncode, done.stderr) == (code, b"")


def test_names_that_the_output_cannot_show_are_escaped(place: Path) -> None:
    with Gallery("people.db") as gallery:
        gallery.rename("Zoë [x]", "Łucja")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "nstcore.cli", "faces", "list"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u0141ucja\t1\t\t\n", b"")


@pytest.mark.parametrize("error", [MemoryError, RuntimeError("a fault of ours")])
def test_what_goes_wrong_is_no_answer(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("nstcore.images.load", fails)
    for command in (("verify", "a.png", "b.png"), ("identify", "a.png"), ("detect", "a.png")):
        code, out, err = run("faces", *command)
        assert (code, out) == (2, "")
        assert ("--max-pixels" if error is MemoryError else "a fault of ours") in err


def test_file_names_cannot_write_on_the_terminal_or_break_lines(place: Path, run: Run) -> None:
    odd = "a\x1b[31m\tb\nc\u202e.png"
    os.rename("a.png", odd)
    os.rename("cat.png", "cat\x1b[2J.png")
    for command in (("identify",), ("detect",), ("verify", "b.png")):
        out, err = run("faces", *command, odd, *["cat\x1b[2J.png"] * (len(command) == 1))[1:]
        assert not re.search("[\x1b\u202e]", out + err)
        assert r"a\x1b[31m\tb\nc\u202e.png" in out
        assert len(out.splitlines()) == (2 if len(command) == 1 else 1)
    with open("broken\x1b[31m.jpg", "wb") as file:
        file.write(b"no picture")
    assert r"broken\x1b[31m.jpg" in run("faces", "identify", "broken\x1b[31m.jpg")[2]


def test_nobody_has_no_distance(place: Path, run: Run) -> None:
    with Gallery("people.db") as gallery:
        gallery.remove("Zoë [x]")
    code, out, _ = run("faces", "identify", "a.png")
    assert code == 1
    assert out.rstrip("\n").split("\t")[6:9] == ["", "0.560000", ""]


# ---- identify ----


def test_identify_known_and_unknown(place: Path, run: Run) -> None:
    code, out, err = run("faces", "identify", "b.png", "-o", "boxed.png")
    assert (code, err) == (0, "")
    name, *box = out.rstrip("\n").split("\t")[:5]
    who, distance, threshold, margin, probability, kind, nearest = out.rstrip("\n").split("\t")[5:]
    assert (name, who, nearest, kind, threshold) == ("b.png", "Zoë [x]", "Zoë [x]", "uncalibrated", "0.560000")
    assert float(margin) == pytest.approx(0.56 - float(distance), abs=2e-6)
    assert float(probability) > 0.9
    with Image.open(place / "boxed.png") as drawn, Image.open(place / "b.png") as plain:
        changed = np.abs(np.asarray(drawn, int) - np.asarray(plain, int)).max(axis=2) > 0
    left, top = round(float(box[0])), round(float(box[1]))
    assert changed[top : top + 2, left : left + 20].all()
    code, out, _ = run("faces", "identify", "b.png", "-t", "0.001")
    assert code == 1
    assert out.split("\t")[5] == ""
    assert out.rstrip("\n").split("\t")[-1] == "Zoë [x]"


def test_one_each(place: Path, run: Run) -> None:
    both = json.loads(run("faces", "identify", "two.png", "--json")[1])[0]["faces"]
    assert [match["name"] for match in both] == ["Zoë [x]", "Zoë [x]"]
    code, out, _ = run("faces", "identify", "two.png", "--one-each", "--json")
    matches = json.loads(out)[0]["faces"]
    nearest = min(matches, key=lambda match: match["distance"])
    assert code == 1
    assert [match["name"] for match in matches if match is not nearest] == [None]
    assert nearest["name"] == "Zoë [x]"
    assert sum("another face" in match["compared"] for match in matches) == 1


def test_pictures_that_fail_do_not_stop_the_others(place: Path, run: Run) -> None:
    code, out, err = run("faces", "identify", "broken.jpg", "a.png", "cat.png")
    assert code == 2
    assert out.startswith("a.png\t")
    assert err.count("\n") == 1
    assert run("faces", "identify", "cat.png")[:2] == (1, "cat.png" + 11 * "\t" + "\n")
    facts = json.loads(run("faces", "identify", "broken.jpg", "cat.png", "--json")[1])
    assert facts[0] == {"file": "cat.png", "faces": []}
    assert "broken.jpg" in facts[1]["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.png", "b.png", "-o", "x.png"), "takes one picture, got 2"),
        (("a.png", "-o", "x.txt"), "suffix"),
        (("a.png", "-o", "a.png"), "is the input"),
        (("a.png", "-g", "none.db"), "none.db does not exist"),
    ],
)
def test_what_cannot_be_identified(place: Path, run: Run, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run("faces", "identify", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_on_a_terminal_it_reads_well(place: Path) -> None:
    shown = in_a_terminal("faces", "identify", "a.png", "cat.png")
    assert "…" not in shown
    head, *table, note = shown.splitlines()
    assert head.split() == ["picture", "face", "who", "distance", "margin", "probability", "nearest"]
    values = r"a\.png +1 +Zoë \[x\] +0\.000 +\+0\.560 +>99\.9% +Zoë \[x\] \(1"
    assert re.match(values, table[0].strip()), table
    assert table[-1].split() == ["cat.png", "none"]
    assert note.startswith("threshold 0.560; probabilities are uncalibrated")


def test_long_names_are_whole_in_eighty_columns(place: Path) -> None:
    """Whatever a table has no room for goes on in the next line: nothing is cut, and numbers stay on one."""
    name, file = "Wilhelmina Slater-Featherstonehaugh", "photographs-of-the-summer-of-2024-in-the-mountains.png"
    with Gallery("people.db") as gallery:
        gallery.rename("Zoë [x]", name)
    (place / "a.png").rename(file)
    shown = in_a_terminal("faces", "identify", file)
    table = shown.split("threshold ")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert "…" not in shown
    edges = [table[0].index(title) for title in ("face", "who", "distance")]
    columns = [[line[low:high].strip() for line in table[1:]] for low, high in zip([0, *edges], edges, strict=False)]
    assert "".join(columns[0]) == file
    assert "".join(columns[2]) == name.replace(" ", "")
    for number in ("0.000", "+0.560", ">99.9%"):
        assert any(number in line.split() for line in table[1:])


# ---- calibrate ----


def test_calibrate_is_kept_and_taken_back(place: Path, people: Path, run: Run) -> None:
    code, out, err = run("faces", "calibrate", "folder", "--far", "0.2")
    assert (code, err) == (0, "")
    assert "from 4 pairs of one person and 24 of two of 4 people" in out
    assert out.endswith("stored in people.db\n")
    with Gallery(place / "people.db") as gallery:
        found = gallery.calibration
    assert (found.calibrated, found.same, found.different, found.false_accept_rate) == (True, 4, 24, 0.2)
    assert found.source == "8 photographs of 4 people in folder"
    out = run("faces", "verify", "Zoë [x]", "b.png")[1]
    assert f"threshold {found.threshold:.3f}" in out
    assert "(calibrated)" in out
    assert "uncalibrated" not in in_a_terminal("faces", "identify", "a.png")  # nothing to say about probabilities
    assert (
        run("faces", "calibrate", "--reset")[1] == "people.db: the encoder's own calibration again, threshold 0.560\n"
    )
    with Gallery(place / "people.db") as gallery:
        assert gallery.calibration == load_encoder().calibration


def test_calibrate_fits_a_head_and_keeps_one_that_is_given(place: Path, people: Path, run: Run) -> None:
    """It is tried on people that it was not fitted to; the answers say that the probability comes from it."""
    code, out, err = run("faces", "calibrate", "folder", "--far", "0.2", "--head")
    assert (code, err) == (0, "")
    assert "on people it was not fitted to: equal error rate" in out
    with Gallery("people.db") as gallery:
        assert (gallery.head is None) is ("not kept" in out)
    encoder = load_encoder()
    head = VerificationHead(encoder.size, encoder=encoder.digest)
    head.save("head.npz")
    out = run("faces", "calibrate", "--head-from", "head.npz")[1]
    assert out == "people.db: the verification head of head.npz gives the probabilities now, for face_encoder\n"
    assert "probability >99.9% (verification head); compared with" in run("faces", "verify", "Zoë [x]", "a.png")[1]
    fields = run("faces", "identify", "b.png")[1].rstrip("\n").split("\t")
    assert (fields[5], fields[10]) == ("Zoë [x]", "head")
    a, b = (encode_faces(name)[0][1] for name in ("a.png", "b.png"))
    assert float(fields[9]) == pytest.approx(float(head.probability(a, b)[0]), abs=1e-6)
    facts = json.loads(
        run("faces", "verify", "a.png", "b.png", "--json")[1]
    )  # two pictures, by the gallery beside them
    assert (facts["by_head"], facts["probability"]) == (True, pytest.approx(float(fields[9]), abs=1e-6))
    assert "probabilities by the gallery's verification head" in in_a_terminal("faces", "identify", "a.png").replace(
        "\r\n", " "
    )
    assert "verification head: equal error rate" in run("faces", "evaluate", "folder", "-g", "people.db")[1]
    assert "by_head" in json.loads(run("faces", "evaluate", "folder", "-g", "people.db", "--json")[1])
    assert "its verification head stays" in run("faces", "calibrate", "folder", "--far", "0.2")[1]
    _compare_heads(run, head)
    run("faces", "calibrate", "--reset")
    assert "(uncalibrated)" in run("faces", "verify", "Zoë [x]", "a.png")[1]


def _compare_heads(run: Run, present: VerificationHead) -> None:
    """A head that the gallery has is neither dropped in silence nor kept without a comparison."""
    command = ("faces", "calibrate", "folder", "--far", "0.2", "--head")
    told = json.loads(run(*command, "--dry-run", "--json")[1])["head"]
    least = min(told["by_head"]["loss"], told["by_distance"]["loss"])
    assert (told["kept"] == "present") is (told["by_present"]["loss"] <= least)
    out = run(*command)[1]
    with Gallery("people.db") as gallery:
        same = gallery.head is not None and np.array_equal(gallery.head.weight.data, present.weight.data)
        assert same is (told["kept"] == "present")
        assert ("it stays; --replace-head takes it out" in out) is same
        assert ("it is taken out" in out) is not same
        gallery.set_head(present)
    out = run(*command, "--replace-head")[1]
    assert "it is taken out" in out
    with Gallery("people.db") as gallery:
        assert (gallery.head is not None) is told["helps"]
        assert gallery.head is None or not np.array_equal(gallery.head.weight.data, present.weight.data)


def test_heads_that_do_not_belong_are_refused(place: Path, people: Path, run: Run) -> None:
    VerificationHead(128, encoder="0" * 64).save("other.npz")
    VerificationHead(128).save("nobodys.npz")
    before = (place / "people.db").read_bytes()
    for arguments, words in (
        (("--head-from", "other.npz"), "encodings of different encoders cannot be compared"),
        (("--head-from", "nobodys.npz"), "does not say which encoder's encodings it takes"),
        (("--head-from", "a.png"), "a.png"),
        (("--head-from", "missing.npz"), "missing.npz"),
        (("folder", "--head-from", "other.npz"), "expects --head-from alone, got more"),
        (("--reset", "--head"), "expects --reset alone, got more"),
        (("folder", "--replace-head"), "expects --replace-head with --head"),
        (("--pairs", "pairs.txt", "--head"), "expects --head with a folder of people, got a list of pairs"),
        (("--head-from", "other.npz", "-g", "new.db"), "new.db does not exist"),
    ):
        code, out, err = run("faces", "calibrate", *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert words in err
    assert (place / "people.db").read_bytes() == before
    assert not (place / "new.db").exists()


def test_calibrate_refuses_what_it_cannot_claim(place: Path, people: Path, run: Run) -> None:
    code, out, err = run("faces", "calibrate", "folder")
    assert (code, out) == (2, "")
    assert "0.001 cannot be claimed: at 95% confidence it takes at least 2995 pairs of two people, got 24" in err
    with Gallery(place / "people.db") as gallery:
        assert not gallery.calibration.calibrated
    for arguments in (("folder",), ("folder", "--far", "2"), ("missing",), ("folder", "--confidence", "1")):
        assert run("faces", "calibrate", *arguments, "-g", "new.db")[0] == 2
    assert not (place / "new.db").exists()
    assert run("faces", "calibrate", "folder", "--far", "0.2", "-g", "new.db")[0] == 0
    assert "got neither" in run("faces", "calibrate")[2]
    assert "--reset alone" in run("faces", "calibrate", "folder", "--reset")[2]


def test_a_dry_run_changes_nothing(place: Path, people: Path, run: Run) -> None:
    before = (place / "people.db").read_bytes()
    code, out, _ = run("faces", "calibrate", "folder", "--far", "0.2", "--confidence", "0.9", "--dry-run", "--json")
    facts = json.loads(out)
    assert (code, facts["gallery"], facts["confidence"]) == (0, None, 0.9)
    assert facts["false_accept"]["trials"] == 24
    assert (place / "people.db").read_bytes() == before


def test_a_rate_that_the_files_cannot_show_is_refused_before_the_work(
    place: Path, people: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def works(*_: object, **__: object) -> None:
        raise AssertionError("a picture was read")

    monkeypatch.setattr("nstcore.images.load", works)
    (people / "pairs.txt").write_text("1\np1 1 2\np1 1 p2 1\n")
    for arguments in (("folder",), ("--pairs", "folder/pairs.txt")):
        code, _, err = run("faces", "calibrate", *arguments)
        assert (code, "cannot be claimed" in err) == (2, True)


def test_calibrating_says_what_several_photographs_cost(place: Path, people: Path, run: Run) -> None:
    out = run("faces", "calibrate", "folder", "--far", "0.2", "--dry-run")[1]
    assert re.search(r"1 photograph a person [\d.]+%, 2 photographs a person [\d.]+%", out), out


# ---- evaluate ----


def test_a_plot_never_replaces_a_photograph(place: Path, people: Path, run: Run) -> None:
    before = (people / "p1" / "1.png").read_bytes()
    code, out, err = run("faces", "evaluate", "folder", "--plot", "folder/p1/1.png")
    assert (code, out) == (2, "")
    assert "is the input" in err
    assert (people / "p1" / "1.png").read_bytes() == before


def test_evaluating_takes_the_gallery_of_the_environment(
    place: Path, people: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gallery("people.db") as gallery:
        gallery.set_calibration(Calibration(0.25, 50.0, -10.0, True, 9, 9, "made up", 0.01))
    monkeypatch.setenv("NSTCORE_GALLERY", "people.db")
    assert json.loads(run("faces", "evaluate", "folder", "--json")[1])["calibration"]["threshold"] == 0.25


def test_evaluate_a_folder(place: Path, people: Path, run: Run) -> None:
    (people / "p1" / "bad.jpg").write_bytes(b"no picture")
    save(people / "p2" / "cat.png", load(place / "cat.png"))
    code, out, err = run("faces", "evaluate", "folder", "--plot", "roc.svg")
    assert (code, err) == (0, "")
    assert out.startswith("4 people, 4 pairs of one person, 24 of two\n")
    assert "2 of 10 photographs took no part:" in out
    assert "folder/p2/cat.png: no face was found" in out
    assert out.endswith("drawn in roc.svg\n")
    assert (place / "roc.svg").read_text().startswith("<svg")
    facts = json.loads(run("faces", "evaluate", "folder", "--json", "-t", "0.3")[1])
    assert (facts["photographs"], facts["calibration"]["threshold"], len(facts["failures"])) == (8, 0.3, 2)
    assert len(facts["folds"]["accuracies"]) == 2


def test_evaluate_a_list_of_pairs(place: Path, people: Path, run: Run) -> None:
    (people / "pairs.txt").write_text("2 1\np1 1 2\np1 1 p2 1\np2 1 2\np3 2 p4 1\n")
    for arguments in (("--pairs", "folder/pairs.txt"), ("folder", "--pairs", "folder/pairs.txt", "-g", "people.db")):
        code, out, _ = run("faces", "evaluate", *arguments, "--json")
        facts = json.loads(out)
        assert (code, facts["same"], facts["different"], facts["identification"]) == (0, 2, 2, None)
        assert len(facts["folds"]["accuracies"]) == 2
    assert run("faces", "evaluate", "folder", "--plot", "roc.pdf")[0] == 2


# ---- real photographs ----
