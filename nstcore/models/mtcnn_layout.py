"""The layers of MTCNN's three networks, as data: sizes and names, nothing else.

All convolutions are valid ones with stride 1, each is followed by a PReLU, and a pool keeps a last window that hangs
over. Three things differ from the original, none of which changes a result: dense layers are written as 1 × 1
convolutions; the heads of a network are one layer, and of the two numbers that its softmax takes only their difference
is kept, which is all the probability depends on; and the first layers of P-Net and R-Net, with 10 and 28 filters, have
6 and 4 more of zeros, because kernels work on 16 channels at a time.
Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016, figure 2.
"""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURE = "mtcnn"
CHANNELS = 3
LOGIT, BOX, POINTS = slice(0, 1), slice(1, 5), slice(5, 15)  # of a head's results
PROPOSAL_STRIDE = 2  # pixels between two windows that P-Net looks at


@dataclass(frozen=True)
class Convolution:
    """A convolution with `filters` of `size` × `size`, its PReLU, and a max pool (window, stride) or none.

    The last `zeros` of the filters are zeros.
    """

    filters: int
    size: int
    pool: tuple[int, int] | None = None
    zeros: int = 0


@dataclass(frozen=True)
class Net:
    """One of the networks: it looks at windows of `side` pixels.

    dense: inputs and units of the layer after the convolutions; None where the head follows them.
    results: of the head: logit, four offsets of the box, and for O-Net ten of the landmarks.
    """

    side: int
    convolutions: tuple[Convolution, ...]
    dense: tuple[int, int] | None
    results: int


NETS = {
    "pnet": Net(12, (Convolution(16, 3, (2, 2), zeros=6), Convolution(16, 3), Convolution(32, 3)), None, 5),
    "rnet": Net(
        24, (Convolution(32, 3, (3, 2), zeros=4), Convolution(48, 3, (3, 2)), Convolution(64, 2)), (576, 128), 5
    ),
    "onet": Net(
        48,
        (Convolution(32, 3, (3, 2)), Convolution(64, 3, (3, 2)), Convolution(64, 3, (2, 2)), Convolution(128, 2)),
        (1152, 256),
        15,
    ),
}


def parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Give the shape of every parameter: weights (k, r, s, c), biases and slopes (k,).

    >>> parameter_shapes()["pnet.head.weight"], parameter_shapes()["onet.dense.weight"]
    ((5, 1, 1, 32), (256, 1, 1, 1152))
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, net in NETS.items():
        channels = CHANNELS
        for i, layer in enumerate(net.convolutions):
            shapes[f"{name}.convolutions.{i}.weight"] = (layer.filters, layer.size, layer.size, channels)
            shapes[f"{name}.convolutions.{i}.bias"] = (layer.filters,)
            shapes[f"{name}.activations.{i}.slope"] = (layer.filters,)
            channels = layer.filters
        if net.dense is not None:
            inputs, channels = net.dense
            shapes[f"{name}.dense.weight"], shapes[f"{name}.dense.bias"] = (channels, 1, 1, inputs), (channels,)
            shapes[f"{name}.dense_activation.slope"] = (channels,)
        shapes[f"{name}.head.weight"] = (net.results, 1, 1, channels)
        shapes[f"{name}.head.bias"] = (net.results,)
    return shapes
