"""The layers of dlib's face encoder, as data: sizes and names, nothing else.

Source: dlib's ``dnn_face_recognition_ex.cpp`` (``anet_type``), a ResNet with 29 convolutions; He, Zhang, Ren, Sun,
"Deep Residual Learning for Image Recognition", CVPR 2016. Its scale-and-shift layers are folded into the convolutions
here.
"""

from __future__ import annotations

ARCHITECTURE = "face_encoder"
CHIP = 150  # height and width of a chip, in pixels
CHANNELS = 3
ENCODING = 128  # numbers that describe a face
STEM_FILTERS, STEM_KERNEL, STEM_STRIDE = 32, 7, 2
KERNEL = 3  # of every other convolution

#: the residual blocks from the picture upwards: (filters, whether it halves height and width)
BLOCKS: tuple[tuple[int, bool], ...] = (
    *((32, False),) * 3,
    *((64, True), *((64, False),) * 3),
    *((128, True), *((128, False),) * 2),
    *((256, True), *((256, False),) * 2),
    (256, True),
)


def block_channels() -> list[tuple[int, int, bool]]:
    """Give (input channels, filters, whether it halves) of every residual block.

    >>> block_channels()[2:4]
    [(32, 32, False), (32, 64, True)]
    """
    inputs = [STEM_FILTERS, *(filters for filters, _ in BLOCKS)]
    return [(channels, *block) for channels, block in zip(inputs, BLOCKS, strict=False)]


def parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Give the shape of every parameter: weights (k, r, s, c), biases (k,), the projection (features, numbers).

    >>> parameter_shapes()["blocks.13.conv2.weight"], parameter_shapes()["projection"]
    ((256, 3, 3, 256), (256, 128))
    """
    shapes: dict[str, tuple[int, ...]] = {
        "stem.weight": (STEM_FILTERS, STEM_KERNEL, STEM_KERNEL, CHANNELS),
        "stem.bias": (STEM_FILTERS,),
    }
    for index, (channels, filters, _) in enumerate(block_channels()):
        for name, inputs in (("conv1", channels), ("conv2", filters)):
            shapes[f"blocks.{index}.{name}.weight"] = (filters, KERNEL, KERNEL, inputs)
            shapes[f"blocks.{index}.{name}.bias"] = (filters,)
    return {**shapes, "projection": (BLOCKS[-1][0], ENCODING)}
