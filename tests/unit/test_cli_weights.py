"""The command group `nst weights`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nstcore import weights
from nstcore.cli.weights import app
from nstcore.errors import WeightsError

runner = CliRunner()


def test_list_has_a_line_for_every_file() -> None:
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == 1 + len(weights.available())
    line = next(line for line in lines if line.split()[0] == "vgg16")
    assert "14,714,688" in line
    assert weights.load(weights.embedded("vgg16")).digest[:12] in line


def test_list_as_json() -> None:
    rows = json.loads(runner.invoke(app, ["list", "--json"]).output)
    assert [row["name"] for row in rows] == weights.available()
    known = {"architecture", "dtype", "parameters", "bytes", "digest", "arrays_digest", "source", "licence"}
    assert known <= rows[0].keys()


def test_verify_all_embedded() -> None:
    result = runner.invoke(app, ["verify"])
    assert result.exit_code == 0
    assert result.output.count("ok ") == len(weights.available())


def test_verify_reports_damage_after_the_sound_files(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"bad")
    good = str(weights.embedded("vgg16"))
    result = runner.invoke(app, ["verify", str(tmp_path / "bad.npz"), good])
    assert isinstance(result.exception, WeightsError)
    assert "bad.npz: is not a zip archive" in str(result.exception)
    assert result.output.startswith("ok ")


def test_convert_passes_errors_on(tmp_path: Path) -> None:
    result = runner.invoke(app, ["convert", str(tmp_path / "absent.onnx"), "-o", str(tmp_path / "a.npz")])
    assert isinstance(result.exception, WeightsError)
    with pytest.raises(WeightsError, match="there is no such file"):
        raise result.exception
