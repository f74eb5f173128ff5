"""What ``nst patches``, ``nst dream`` and ``nst gram`` share: the network, and lists of layers and units."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nstcore.errors import ArgumentError, OutputError

NETWORKS = ("vgg16", "vgg19", "alexnet", "face_encoder")


def network(command: str, name: str, weights: Path | None) -> Any:
    """A network by name with its embedded weights, or the one that the file `weights` is of."""
    from nstcore import models
    from nstcore import weights as files

    if name not in NETWORKS:
        raise ArgumentError(f"[{command}] expects --net {', '.join(NETWORKS)}, got {name!r}")
    if weights is not None:
        name = files.load(weights).architecture
    build: dict[str, Any] = {
        "vgg16": models.vgg16, "vgg19": models.vgg19, "alexnet": models.alexnet,
        "alexnet_torchvision": models.alexnet, "face_encoder": models.face_encoder,
    }  # fmt: skip
    if name not in build:
        raise ArgumentError(f"[{command}] expects --weights of a network of nst.models, got {name}")
    return build[name](weights)


def layers(command: str, text: str, net: Any) -> list[str]:
    """``conv1_1,conv3_2`` as names in the order of the network; ``all`` is every layer but the pools."""
    from nstcore.visualize.network import check_layers
    from nstcore.visualize.patches import default_layers

    known = list(net.layers)
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if not wanted:
        raise ArgumentError(f"[{command}] expects --layer as names with commas between, or all; got {text!r}")
    if wanted == ["all"]:
        return default_layers(net, (1, 1))
    return sorted(check_layers(net, wanted), key=known.index)


def units(command: str, text: str) -> list[int] | None:
    """``0:16``, ``3,7,100:110`` as numbers without repetitions; None for ``all``."""
    if text.strip() == "all":
        return None
    found: dict[int, None] = {}
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        try:
            low = int(first or 0) if colon else int(first)
            high = int(last) if colon else low + 1
        except ValueError:
            low, high = 0, 0
        if not 0 <= low < high <= 1_000_000:
            raise ArgumentError(f"[{command}] expects --units as 0:16, 3,7 or all, got {text!r}")
        found.update(dict.fromkeys(range(low, high)))
    return list(found)


def check_units(chosen: Sequence[int], counts: dict[str, int]) -> None:
    """Refuse, before the work, a unit that one of the layers does not have."""
    from nstcore.visualize.network import check_unit

    for layer, count in counts.items():
        for unit in chosen:
            check_unit(layer, unit, count)


def cached_index(*facts: str) -> Path:
    """Where the index of these facts is kept from call to call: in the user's cache folder, which is made."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nstcore" / "patches"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"[patches] the cache folder {base} cannot be made: {error.strerror or error}; name a file with --index"
        ) from error
    return base / f"{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:24]}.npz"
