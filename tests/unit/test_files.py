"""Atomic writing, and refusing bad places before the work."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nstcore.errors import NstError, OutputError
from nstcore.files import atomic_write, check_output


def write_bytes(content: bytes):
    return lambda stream: stream.write(content)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "out.bin"
    atomic_write(path, write_bytes(b"one"))
    assert path.read_bytes() == b"one"
    atomic_write(str(path), write_bytes(b"two"))
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["out.bin"]


def test_stream_can_seek(tmp_path):
    def write(stream):
        stream.write(b"....tail")
        stream.seek(0)
        stream.write(b"head")

    atomic_write(tmp_path / "out.bin", write)
    assert (tmp_path / "out.bin").read_bytes() == b"headtail"


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file_and_no_rest(tmp_path, interruption):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def write(stream):
        stream.write(b"half")
        raise interruption("stopped")

    with pytest.raises(interruption):
        atomic_write(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_failing_disk_is_an_output_error(tmp_path):
    def write(stream):
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"\[output\] .*out.bin cannot be written: No space left"):
        atomic_write(tmp_path / "out.bin", write)
    assert names(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_file_has_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "out.bin", write_bytes(b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.bin").stat().st_mode) == 0o666 & ~umask


def test_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "private.bin"
    path.write_bytes(b"old")
    path.chmod(0o600)
    atomic_write(path, write_bytes(b"new"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_symbolic_link_stays_a_link(tmp_path):
    (tmp_path / "store").mkdir()
    real, link = tmp_path / "store" / "real.bin", tmp_path / "link.bin"
    real.write_bytes(b"old")
    link.symlink_to(real)
    atomic_write(link, write_bytes(b"new"))
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert names(tmp_path / "store") == ["real.bin"]


def test_longest_legal_name_is_possible(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    atomic_write(check_output(path), write_bytes(b"x"))
    assert path.read_bytes() == b"x"


def test_check_output_accepts_new_and_old_and_leaves_nothing(tmp_path):
    path = tmp_path / "out.png"
    assert check_output(path) == path
    assert check_output(str(path)) == path
    assert names(tmp_path) == []
    path.write_bytes(b"old")
    assert check_output(path, inputs=[tmp_path / "missing.jpg"]) == path
    assert path.read_bytes() == b"old"


def test_check_output_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_output("out.png") == Path("out.png")


@pytest.mark.parametrize("kind", ["same", "relative", "symbolic", "hard", "through folder"])
def test_check_output_never_accepts_an_input(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"photo")
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "symbolic.jpg").symlink_to(photo)
    os.link(photo, tmp_path / "hard.jpg")
    output = {
        "same": photo,
        "relative": Path("photo.jpg"),
        "symbolic": tmp_path / "symbolic.jpg",
        "hard": tmp_path / "hard.jpg",
        "through folder": tmp_path / "folder" / "photo.jpg",
    }[kind]
    with pytest.raises(OutputError, match=r"is the input .*photo.jpg; choose another name"):
        check_output(output, inputs=[tmp_path / "other.jpg", photo])


def test_check_output_names_what_is_wrong(tmp_path):
    with pytest.raises(OutputError, match=r"the folder .*missing of .* does not exist"):
        check_output(tmp_path / "missing" / "out.png")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"file of .* is not a folder"):
        check_output(tmp_path / "file" / "out.png")
    with pytest.raises(OutputError, match="is a folder; give a file name in it"):
        check_output(tmp_path)
    with pytest.raises(OutputError, match="empty"):
        check_output("")
    with pytest.raises(OutputError, match="cannot be a file name"):
        check_output(tmp_path / ("n" * 300 + ".png"))
    with pytest.raises(OutputError, match="cannot be a file name"):
        check_output("a\0b.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_check_output_finds_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written: Permission denied"):
            check_output(tmp_path / "out.png")
    finally:
        tmp_path.chmod(0o700)


def test_check_output_finds_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match=r"the folder .* cannot be written: Permission denied"):
        check_output(tmp_path / "out.png")


@pytest.mark.parametrize("call", [check_output, lambda path: atomic_write(path, write_bytes(b"x"))])
def test_devices_are_never_replaced(tmp_path, call):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is not a regular file"):
        call(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_output_error_is_an_oserror_of_ours():
    assert issubclass(OutputError, OSError)
    assert issubclass(OutputError, NstError)
