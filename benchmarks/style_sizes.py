"""Planned and measured memory and time of whole runs of style transfer, size by size.

python benchmarks/style_sizes.py photo.jpg painting.jpg --sizes 128,256,512,1024,2048
python benchmarks/style_sizes.py photo.jpg painting.jpg --sizes 4000 --steps 12 -- --memory 2G --start-size 4000

Each run is a process of its own, `nst style`, started once for its plan and once to paint; its peak is the largest
resident set that the system saw (`ru_maxrss`). What stands behind ``--`` goes to the command as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from nstcore.style.plan import Way

MB = 1 << 20
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
ROW = "{:>6} {:>9} {:>9} {:>7} {:>9} {:>9} {:>7}  {}"


class Ran(NamedTuple):
    """What a process printed, the seconds it took, and its peak in bytes."""

    text: str
    seconds: float
    peak: int


def run(command: list[str]) -> Ran:
    """Run `nst` with these arguments; `SystemExit` with what it said when it fails."""
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "nstcore.cli", *command], stdout=out, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(text)
    return Ran(text, seconds, used.ru_maxrss * UNIT)


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("painting")
    parser.add_argument("--sizes", default="128,256,512,1024,2048")
    parser.add_argument("--steps", type=int, help="of the smallest size, instead of the default")
    parser.add_argument("--keep", type=Path, help="folder for the pictures")
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    print(ROW.format("px", "plan MB", "peak MB", "ratio", "plan s", "took s", "ratio", "way"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for size in arguments.sizes.split(","):
            command = ["style", arguments.photo, arguments.painting, "--size", size, *more]
            command += ["--steps", str(arguments.steps)] if arguments.steps else []
            command += ["-o", str(folder / f"{size}.png"), "--json"]
            plan = json.loads(run([*command, "--plan"]).text)
            painted = run(command)
            print(
                ROW.format(
                    size, plan["peak"] // MB, painted.peak // MB, f"{plan['peak'] / painted.peak:.3f}",
                    round(plan["seconds"]), round(painted.seconds), f"{plan['seconds'] / painted.seconds:.2f}",
                    Way(*plan["way"]),
                ),
                flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
