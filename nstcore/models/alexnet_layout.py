"""The convolutions of AlexNet, as data: names, sizes and channels, nothing else.

``alexnet`` is the network of Krizhevsky, Sutskever and Hinton (NIPS 2012, figure 2) as Caffe's reference model has it:
local response normalisation after conv1 and conv2, and the two halves of its two GPUs as groups.
``alexnet_torchvision`` is the variant of Krizhevsky's "One weird trick" (2014): fewer filters, neither normalisation
nor groups.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A convolution with its ReLU, and what follows it before the next one."""

    name: str
    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    normalises: bool = False
    pools: bool = False


INPUT_CHANNELS = 3
POOL, POOL_STRIDE = 3, 2

#: architecture -> its stages from the picture upwards
STAGES: dict[str, tuple[Stage, ...]] = {
    "alexnet": (
        Stage("conv1", 96, 11, stride=4, normalises=True, pools=True),
        Stage("conv2", 256, 5, padding=2, groups=2, normalises=True, pools=True),
        Stage("conv3", 384, 3, padding=1),
        Stage("conv4", 384, 3, padding=1, groups=2),
        Stage("conv5", 256, 3, padding=1, groups=2, pools=True),
    ),
    "alexnet_torchvision": (
        Stage("conv1", 64, 11, stride=4, padding=2, pools=True),
        Stage("conv2", 192, 5, padding=2, pools=True),
        Stage("conv3", 384, 3, padding=1),
        Stage("conv4", 256, 3, padding=1),
        Stage("conv5", 256, 3, padding=1, pools=True),
    ),
}


def layers(architecture: str) -> list[str]:
    """Names of all layers from the picture upwards, convolutions after their ReLU.

    >>> layers("alexnet")
    ['conv1', 'norm1', 'pool1', 'conv2', 'norm2', 'pool2', 'conv3', 'conv4', 'conv5', 'pool5']
    """
    names: list[str] = []
    for number, stage in enumerate(STAGES[architecture], start=1):
        names += [stage.name]
        names += [f"norm{number}"] * stage.normalises + [f"pool{number}"] * stage.pools
    return names


def parameter_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Give the shape of every parameter: weights (k, r, s, c / groups), biases (k,).

    >>> parameter_shapes("alexnet")["conv2.weight"]
    (256, 5, 5, 48)
    """
    shapes: dict[str, tuple[int, ...]] = {}
    channels = INPUT_CHANNELS
    for stage in STAGES[architecture]:
        shapes[f"{stage.name}.weight"] = (stage.filters, stage.kernel, stage.kernel, channels // stage.groups)
        shapes[f"{stage.name}.bias"] = (stage.filters,)
        channels = stage.filters
    return shapes
