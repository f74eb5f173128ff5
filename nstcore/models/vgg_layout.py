"""The convolutions of VGG-16 and VGG-19, as data: names and channels, nothing else.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015),
table 1, columns D and E. Every convolution is 3 x 3, stride 1, padding 1; a 2 x 2 max-pool ends every block.
"""

from __future__ import annotations

from collections.abc import Iterator

#: architecture -> its blocks, each (number of convolutions, output channels)
BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}

INPUT_CHANNELS = 3
KERNEL = 3


def convolutions(architecture: str) -> Iterator[tuple[str, int, int]]:
    """Yield (name, input channels, output channels) of every convolution, from the picture upwards.

    >>> list(convolutions("vgg16"))[:3]
    [('conv1_1', 3, 64), ('conv1_2', 64, 64), ('conv2_1', 64, 128)]
    """
    channels = INPUT_CHANNELS
    for block, (count, width) in enumerate(BLOCKS[architecture], start=1):
        for index in range(1, count + 1):
            yield f"conv{block}_{index}", channels, width
            channels = width


def parameter_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Give the shape of every parameter: weights (k, r, s, c), biases (k,).

    >>> parameter_shapes("vgg19")["conv5_4.weight"]
    (512, 3, 3, 512)
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, inputs, outputs in convolutions(architecture):
        shapes[f"{name}.weight"] = (outputs, KERNEL, KERNEL, inputs)
        shapes[f"{name}.bias"] = (outputs,)
    return shapes
