"""``nst doctor``: what this installation is and can do."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import numpy as np
import typer

import nstcore as nst
from nstcore import weights
from nstcore.backend import why_no_cuda
from nstcore.errors import NstError


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print version, backend, instruction set, threads, weights with their digests, and whether there is a GPU."""
    facts = _facts()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            typer.echo(f"{name:<16} {value}" if not isinstance(value, list) else f"{name:<16} {', '.join(value)}")
    if "error" in facts["self-test"] or any("DAMAGED" in line for line in facts["weights"]):
        raise typer.Exit(1)


def _facts() -> dict[str, Any]:
    return {
        "nstcore": nst.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "numpy": np.__version__,
        **{name: _installed(name) for name in ("scipy", "pillow", "typer")},
        "system": f"{platform.system()} {platform.machine()}",
        "backend": nst.current_backend(),
        "instruction set": f"{nst.get_isa()} (of {', '.join(nst.backend.cpu.isas())})",
        "threads": str(nst.get_num_threads()),
        "gpu": f"not used: {why_no_cuda()}" if why_no_cuda() else "CUDA through CuPy: NSTCORE_BACKEND=cuda",
        "weights": [_weights(name) for name in weights.available()],
        "self-test": _self_test(),
    }


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _weights(name: str) -> str:
    try:
        return f"{name} sha256 {weights.verify(weights.embedded(name)).digest[:16]} ok"
    except NstError as error:
        return f"{name} DAMAGED: {error}"


def _self_test() -> str:
    """Compare one convolution of each instruction set with the reference."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 20, 20, 16)), rng.standard_normal((32, 3, 3, 16))
    with nst.use_backend("reference"):
        expected = nst.ops.conv2d(x, w, padding=1)
    active, errors = nst.get_isa(), []
    for isa in nst.backend.cpu.isas():
        nst.set_isa(isa)
        with nst.use_backend("cpu"):
            found = nst.ops.conv2d(x, w, padding=1)
        if not np.allclose(found, expected, rtol=0, atol=1e-11):
            errors.append(isa)
    nst.set_isa(active)
    return f"error: conv2d is wrong on {', '.join(errors)}" if errors else "conv2d agrees on every instruction set"
