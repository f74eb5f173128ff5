"""How the command `nst` ends when something stops it: Ctrl-C, a signal, a full disk, a loss that diverges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nstcore as nst
from nstcore.images import load, save
from nstcore.visualize.index import load_index

from .conftest import BOTH, OUTPUTS, QUICK, ROOT, Run, listing


def test_too_little_memory_is_one_line(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(nst.optim.LBFGS, "step", hungry)
    code, _, err = run("style", "photo.jpg", "painting.png", *QUICK)
    assert (code, err) == (1, "error: out of memory; a smaller --size needs less\n")


def test_a_loss_that_diverges_writes_the_last_good_picture(place: Path, run: Run) -> None:
    arguments = ["--optimizer", "adam", "--learning-rate", "1e12", "--history", "l.csv", "--plot", "l.png"]
    code, out, err = run("style", "photo.jpg", "painting.png", "-o", "out.png", *QUICK, "--steps", "30", *arguments)
    assert code == 1
    assert "diverged" in out
    assert err.splitlines()[-1].startswith("error: [style] the loss is not finite at step ")
    assert load(place / "out.png").shape == (21, 32, 3)


@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupt_writes_what_there_is(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    take_step, taken = nst.optim.LBFGS.step, 0

    def interrupted(*arguments: Any) -> float:
        nonlocal taken
        if taken == step:
            raise KeyboardInterrupt
        taken += 1
        return take_step(*arguments)

    monkeypatch.setattr(nst.optim.LBFGS, "step", interrupted)
    code, out, _ = run("style", *BOTH, *OUTPUTS, *QUICK, "--steps", "20")
    assert code == 130
    assert "interrupted" in out
    assert load(place / "out.png").shape == (21, 32, 3)
    assert len((place / "l.csv").read_text().splitlines()) == step + 1
    assert (place / "l.png").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_before_the_first_step_writes_nothing(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """The start is no result, and an earlier result is worth more."""
    interrupt(monkeypatch)
    (place / "out.png").write_bytes(b"an earlier result")
    before = listing(place)
    code, out, _ = run("style", *BOTH, *OUTPUTS, *QUICK, *["--json"] * as_json)
    assert code == 130
    assert listing(place) == before
    if as_json:
        facts = json.loads(out)
        assert (facts["output"], facts["steps"], facts["stopped"]) == (None, 0, "interrupted")
    else:
        assert out == "out.png: interrupted before the first step; nothing was written\n"


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(nst.optim.LBFGS, "step", at_once)


def test_an_interrupt_while_options_are_read_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nstcore.cli.app import TyperGroup

    def at_once(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperGroup, "make_context", at_once)
    assert run("doctor") == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("module", ["numpy", "nstcore._native", "nstcore.cli.app", "typer", "rich.console"])
def test_an_interrupt_while_starting_is_one_line(module: str) -> None:
    """Ctrl-C in the middle of an import, which may be in C code that gives another error in its place."""
    code = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
import _nst
sys.argv = ["nst", "style", "photo.jpg", "painting.jpg"]
sys.exit(_nst.main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_an_interrupt_before_the_run_is_one_line(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(nst.models.VGG, "features", interrupt)
    assert run("style", "photo.jpg", "painting.png", *QUICK)[::2] == (130, "error: interrupted\n")
    assert not (place / "out.png").exists()


def start(place: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nstcore.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(nst.__file__).parents[1]), "NSTCORE_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process_keeps_what_is_done(place: Path, number: signal.Signals) -> None:
    process = start(place, "style", "photo.jpg", "painting.png", "-o", "out.png", *QUICK, "--steps", "100000")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("step 1/100000")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "interrupted, this is what was reached" in out
    assert "Traceback" not in err
    assert load(place / "out.png").shape == (21, 32, 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_run_is_kept_and_goes_on_bit_for_bit(place: Path, number: signal.Signals) -> None:
    """Stopped by a signal at whatever step, and resumed, it ends with the file of a run that nobody stopped."""
    rng = np.random.default_rng(0)
    for i in range(24):
        (place / "classes" / str(i // 4)).mkdir(parents=True, exist_ok=True)
        save(place / "classes" / str(i // 4) / f"{i}.png", rng.random((16, 16, 3)))
    command = ["faces", "train", "classes", "--no-align", "--side", "16", "--size", "8", "--people", "4", "--photos",
               "3", "--patience", "0", "--evaluate-every", "50", "--validation", "0.3", "--steps", "400"]  # fmt: skip
    whole = start(place, *command, "-o", "whole.npz")
    process = start(place, *command, "-o", "part.npz", "--checkpoint", "state.npz")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("step 1 ")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert "interrupted, this is what was reached" in out
    assert "to continue, give the same command with --resume state.npz" in out
    assert nst.weights.load(place / "part.npz").meta["training"]["stopped"] == "interrupted"  # type: ignore[index]
    assert 0 < nst.weights.load(place / "state.npz").meta["steps"] < 400  # type: ignore[operator]
    rest = start(place, *command, "-o", "rest.npz", "--resume", "state.npz")
    assert (rest.wait(60), whole.wait(60)) == (0, 0)
    for process in (whole, rest):
        process.communicate()
    first, second = (nst.weights.load(place / name) for name in ("whole.npz", "rest.npz"))
    assert first.arrays_digest == second.arrays_digest
    assert first.meta["encoding"] == second.meta["encoding"]


def test_a_pass_over_pictures_and_a_dream_are_kept_when_the_process_is_told_to_end(place: Path) -> None:
    """With SIGTERM: its own exit code, no traceback; the index has whole pictures, and the same command goes on."""
    (place / "photos").mkdir()
    for i in range(40):
        save(place / "photos" / f"{i:02}.png", np.full((64, 64, 3), i / 40))
    command = ["patches", "photos", "--layer", "conv5_3", "--units", "0:2", "--index", "found.npz", "-o", "s.png"]
    process = start(place, *command)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("looking 4/40")
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (143, False)
    assert "the same command goes on from there (index found.npz)" in err
    assert 4 <= load_index(place / "found.npz").done < 40
    dream = start(place, "dream", "--layer", "conv1_2", "--size", "32", "--steps", "20000", "-o", "dream.png")
    assert dream.stderr is not None
    assert "2000/20000" in dream.stderr.readline()
    dream.terminate()
    out, err = dream.communicate(timeout=60)
    assert (dream.returncode, err) == (143, "")
    assert "interrupted, this is what was reached" in out
    assert load(place / "dream.png").shape == (32, 32, 3)


def test_who_handles_sigterm_goes_on_doing_so(place: Path, run: Run) -> None:
    """A program that calls the command in its own process, or ignores the signal, keeps its handler."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run("ops")[0] == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_bad_command_in_a_process_is_one_line(place: Path) -> None:
    process = start(place, "style", "absent.jpg", "painting.png")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "error: [image] absent.jpg does not exist\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [["doctor"], ["doctor", "--json"], ["ops"], ["weights", "list"], ["--version"]])
def test_a_full_disk_behind_the_output_is_one_line(place: Path, command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        code = "import sys, _nst; sys.exit(_nst.main())"
        done = subprocess.run([sys.executable, "-c", code, *command], cwd=ROOT, stdout=full, stderr=-1, timeout=60)
    expected = "error: [output] the standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr.decode()) == (2, expected)


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(place: Path, run: Run) -> None:
    with Image.open(place / "photo.jpg") as photo:
        photo.save(place / "profile.jpg", icc_profile=b"damaged" * 30)
    code, out, err = run("style", "profile.jpg", "painting.png", "-o", "out.png", *QUICK, "--json")
    assert code == 0
    assert json.loads(out)["output"] == "out.png"
    assert err == "warning: [image] profile.jpg: its colour profile is damaged or unfit and is ignored\n"


def test_a_reader_that_leaves_gets_no_traceback(place: Path) -> None:
    process = start(place, "ops", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()
