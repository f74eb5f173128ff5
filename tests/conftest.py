"""What every test may use: the folder of real photographs, and skips with a reason for what a machine lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nstcore.backend import cpu, why_no_cuda

DATA_VARIABLE = "NSTCORE_TEST_DATA"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = os.environ.get(DATA_VARIABLE)
    missing = {
        "data": None if folder and Path(folder).is_dir() else f"{DATA_VARIABLE} names no folder",
        "gpu": why_no_cuda() or None,
    }
    for item in items:
        for name, reason in missing.items():
            if reason and name in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of photographs, paintings and faces; for tests marked ``data``."""
    return Path(os.environ[DATA_VARIABLE]).resolve()


@pytest.fixture(autouse=True)
def _restore_native_settings() -> Iterator[None]:
    """A test may choose an instruction set and a number of threads; the next one finds them as they were."""
    before = cpu.get_isa(), cpu.get_num_threads()
    yield
    cpu.set_isa(before[0])
    cpu.set_num_threads(before[1])
