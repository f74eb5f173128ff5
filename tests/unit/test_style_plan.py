"""Memory that is known before, and obeyed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nstcore import models
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError
from nstcore.images import load, save
from nstcore.style import Settings, plan_transfer, transfer
from nstcore.style.plan import CERTAIN, Held, Way, choose, parts, ways

Array = NDArray[Any]
MEASURE = """
import sys
import numpy as np
from nstcore.models import vgg16
from nstcore.style import plan_transfer, transfer

size, options = int(sys.argv[1]), eval(sys.argv[2])
rng = np.random.default_rng(0)
photo, painting = (rng.random((size * 3 // 4, size, 3), np.float32) for _ in range(2))
options = {"size": size, "start_size": 16384, "steps": 2, "net": vgg16(), **options}
planned = plan_transfer(photo, painting, **options).peak
transfer(photo, painting, **options)
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
print(planned, peak)
"""


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (128, {"optimizer": "adam"}),
        (320, {}),
        (400, {"optimizer": "gd", "memory": "low"}),
    ],
)
def test_the_peak_is_as_planned(size: int, options: dict[str, Any]) -> None:
    """Within a tenth, of a process of its own; L-BFGS has few of its past steps by then, which are counted off."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(size), repr(options)], capture_output=True, text=True, check=True
    )
    planned, peak = map(int, done.stdout.split())
    if "optimizer" not in options:
        planned -= 2 * 8 * 12 * size * size * 3 // 4
    assert 0.9 < planned / peak < 1.1


WITH_MORE = """
import sys
import numpy as np
from nstcore.models import vgg16
from nstcore.style import plan_transfer, transfer

photo, paintings, options = eval(sys.argv[1])
rng = np.random.default_rng(0)
made = lambda x: x if isinstance(x, str) else rng.random((*x, 3), np.float32)
photo, paintings = made(photo), [made(x) for x in paintings]
if "regions" in options:
    options["regions"] = [made(x) for x in options["regions"]]
options = {"start_size": 16384, "steps": 1, "optimizer": "adam", "net": vgg16(), **options}
if sys.argv[2] == "plan":
    print(plan_transfer(photo, paintings, **options).peak)
else:
    transfer(photo, paintings, **options)
    peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
    print(peak, plan_transfer(photo, paintings, **options).peak)
"""


def measured(photo: Any, paintings: list[Any], options: dict[str, Any]) -> list[int]:
    """Planned, measured in another process, and planned there once more after the run."""
    given = [sys.executable, "-c", WITH_MORE, repr((photo, paintings, options))]
    both = [subprocess.run([*given, what], capture_output=True, text=True, check=True) for what in ("plan", "run")]
    return [int(number) for done in both for number in done.stdout.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("photo", "paintings", "options"),
    [
        ((150, 200), [(150, 200)], {"size": 200, "style_scale": 3.0}),
        ((100, 500), [(300, 300)], {"size": 500}),
        ((225, 300), [(225, 300), (300, 225)], {"size": 300, "regions": [(90, 120), (90, 120)]}),
        ((225, 300), [(225, 300)], {"size": 300, "pooling": "avg"}),
    ],
)
def test_the_plan_knows_paintings_masks_and_pools(photo: Any, paintings: list[Any], options: dict[str, Any]) -> None:
    planned, peak, again = measured(photo, paintings, options)
    assert 0.9 < planned / peak < 1.15
    assert again == pytest.approx(planned, rel=0.15)  # what the run left behind is not the program's


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_the_plan_knows_what_decoding_takes(tmp_path: Path) -> None:
    save(tmp_path / "large.jpg", np.random.default_rng(0).random((2400, 3600, 3), np.float32))
    planned, peak, _ = measured(str(tmp_path / "large.jpg"), [(48, 64)], {"size": 64})
    assert 0.9 < planned / peak < 1.1
    with pytest.raises(ArgumentError, match=r"need at least \d+M of memory, got 120M"):
        plan_transfer(tmp_path / "large.jpg", np.full((48, 64, 3), 0.5), size=64, memory=120 << 20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_a_limit_is_kept_where_the_painting_is_larger_than_the_picture() -> None:
    limit = 330 << 20
    planned, peak, _ = measured((200, 1000), [(600, 600)], {"size": 1000, "memory": limit})
    assert planned <= limit
    assert peak <= limit


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_a_limit_is_kept_from_the_smallest_size_to_the_largest() -> None:
    """Sizes that are seen whole leave nothing that the tiles of the last one would be on top of."""
    limit = 375 << 20
    options = {"optimizer": "adam", "start_size": 512, "steps": 1, "memory": limit}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "724", repr(options)], capture_output=True, text=True, check=True
    )
    planned, peak = map(int, done.stdout.split())
    assert planned <= limit
    assert peak <= limit


def test_less_memory_takes_slower_ways(net: models.VGG) -> None:
    settings, shape, program = Settings(optimizer="adam"), (1500, 2000, 3), 100 << 20
    held = Held(shape, (shape,))
    needs = [sum(parts(net, settings, way, shape, held, program).values()) for way in ways()]
    assert needs[0] > needs[1] > needs[7] > needs[8]
    assert needs[-1] == min(needs)
    for limit in (needs[0], needs[1], needs[7], needs[-1]):
        memory = int(limit * CERTAIN) + (1 << 20)
        chosen = choose(net, Settings(optimizer="adam", memory=memory), shape, held, program)
        assert sum(parts(net, settings, chosen, shape, held, program).values()) * CERTAIN <= memory
    assert choose(net, Settings(memory="low"), shape, held, program) == Way(low=True)
    assert choose(net, Settings(memory="low"), shape, held._replace(regions=2), program) == Way()


def test_what_does_not_fit_is_refused_and_the_least_that_would_do_is_named(net: models.VGG) -> None:
    photo, painting = np.full((48, 64, 3), 0.25), np.full((48, 64, 3), 0.75)
    with pytest.raises(ArgumentError, match=r"64x48 pixels need at least (\d+)M of memory, got 10M.*adam") as caught:
        transfer(photo, painting, net=net, size=64, memory=10 << 20)
    least = int(str(caught.value).split("least ")[1].split("M")[0])
    assert transfer(photo, painting, net=net, size=64, steps=1, memory=(least + 20) << 20).history
    with pytest.raises(ArgumentError, match="memory as a whole number from 1"):
        Settings(memory=0)


def test_a_picture_in_tiles_is_the_same_picture(net: models.VGG, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of gradient descent, whose result is as far off as its gradient; later steps part, as chaos does."""
    photo, painting = load(picture_path("rocket"), size=230), paint("swirl", 100, 140)
    options: dict[str, Any] = {"net": net, "size": 230, "start_size": 230, "steps": 1, "optimizer": "gd"}
    whole = transfer(photo, painting, **options)
    monkeypatch.setattr("nstcore.style.run.choose", lambda *_: Way(tile=64, keep_content=False))
    parted = transfer(photo, painting, **options)
    np.testing.assert_allclose(parted.image, whole.image, atol=1e-5)
    for one, other in zip(parted.history, whole.history, strict=True):
        assert one.total == pytest.approx(other.total, rel=1e-5)


def test_the_plan_in_words(net: models.VGG) -> None:
    grey = np.full((96, 128, 3), 0.5)
    found = plan_transfer(grey, grey, net=net, size=512, steps=100)
    assert [level.size for level in found.levels] == [256, 362, 512]
    words = "\n".join(found.lines())
    assert "100 at 256 px, 65 at 362 px, 43 at 512 px" in words
    assert f"about {round(found.peak / 2**20)} MB" in words
    assert found.seconds > 0
    assert sum(found.parts.values()) == found.peak
