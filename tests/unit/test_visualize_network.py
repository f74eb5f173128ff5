"""Looking at a network does not change it, and its digest is that of what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nstcore import Tensor, nn, ops
from nstcore.visualize import (
    correlations,
    deconv,
    index_patches,
    layer_names,
    maximize,
    occlusion,
    receptive_field,
    top_patches,
)  # fmt: skip
from nstcore.visualize.network import network_digest

PHOTO = np.random.default_rng(0).random((12, 12, 3)).astype(np.float32)


def learning() -> Any:
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, rng=rng), nn.BatchNorm(4, activation="relu"), nn.Dropout(0.5, seed=1),
        nn.BatchNorm(4), nn.Conv2d(4, 5, 3, rng=rng),
    )  # fmt: skip
    net.parts[1].running[:] = [[0.1, 0.2, 0.3, 0.4], [0.5, 1.0, 1.5, 2.0]]
    net.train()
    net.parts[3].eval()  # a part that its owner has frozen
    return net


LOOKS: dict[str, Callable[[Any], Any]] = {
    "top_patches": lambda net: top_patches(net, "parts.4", 1, [PHOTO, PHOTO[::-1]])[0].patches[0].activation,
    "index_patches": lambda net: index_patches(net, [PHOTO]).layers["parts.3"].value.tolist(),
    "deconv": lambda net: deconv(net, "parts.4", 1, PHOTO).values.tolist(),
    "occlusion": lambda net: occlusion(net, "parts.4", 1, PHOTO, window=2).values.tolist(),
    "maximize": lambda net: maximize(net, "parts.4", 1, size=10, steps=2).image.tolist(),
    "correlations": lambda net: correlations(net, "parts.1", PHOTO).gram.tolist(),
    "receptive_field": lambda net: receptive_field(net, "parts.4", (12, 12)),
    "layer_names": lambda net: layer_names(net, (12, 12)),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_network_that_learns_is_looked_at_as_trained(name: str) -> None:
    net = learning()
    before = {key: value.copy() for key, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    found = LOOKS[name](net)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    assert [part.training for part in net.modules()] == modes == [True, True, True, True, False, True]
    assert found == LOOKS[name](learning().eval())


def test_modes_come_back_after_an_error() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            self.norm = nn.BatchNorm(3)

        def forward(self, x: Any) -> Any:
            self.norm(x)
            raise RuntimeError("a fault of the user's own")

    net = Fails()
    with pytest.raises(RuntimeError, match="a fault"):
        correlations(net, "norm", PHOTO)
    assert (net.training, net.norm.training) == (True, True)
    assert "training" not in vars(net)
    np.testing.assert_array_equal(net.norm.running, [[0, 0, 0], [1, 1, 1]])


class Scaled(nn.Module):
    def __init__(self, **settings: Any) -> None:
        self.conv = nn.Conv2d(3, 2, 3, rng=np.random.default_rng(0))
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, x: Any) -> Any:
        return self.conv(x)


def test_the_digest_is_of_all_that_is_computed_with() -> None:
    def made(forward: Callable[..., Any]) -> nn.Module:
        return type("Made", (nn.Module,), {"forward": forward, "__module__": "user"})()

    nets = [
        Scaled(), Scaled(sizes=[1, 2]), Scaled(sizes=[1, 3]), Scaled(by={"a": [1.5]}), Scaled(by={"a": [2.5]}),
        Scaled(rate=np.float32(1)), Scaled(activation=ops.relu), Scaled(activation=ops.exp),
        Scaled(change=lambda x: x * 2), Scaled(change=lambda x: x * 3), Scaled(parts=[nn.Conv2d(3, 2, 1)]),
        made(lambda self, x: x * 2), made(lambda self, x: x * 3), Scaled(scales=[Tensor(np.zeros(2))]),
        Scaled(scales=[Tensor(np.ones(2))]),
    ]  # fmt: skip
    digests = [network_digest(net) for net in nets]
    assert len(set(digests)) == len(nets)
    assert network_digest(Scaled(sizes=[1, 2])) == digests[1]
    changed = Scaled()
    changed.conv.bias.data[1] += 1
    assert network_digest(changed) not in digests


def test_the_digest_says_nothing_of_places_in_memory_or_modes() -> None:
    def net() -> Scaled:
        return Scaled(parts=(nn.BatchNorm(2), nn.BatchNorm(2)), rng=np.random.default_rng(0), none=None)

    assert network_digest(net()) == network_digest(net())
    assert network_digest(net().eval()) == network_digest(net())
