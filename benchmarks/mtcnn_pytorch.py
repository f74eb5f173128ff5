"""facenet-pytorch's MTCNN, the reference of our detector, on a current PyTorch.

`pip install --no-deps facenet-pytorch`: its dependencies ask for an old PyTorch. Where torchvision and requests are
missing, what the package imports of them is replaced: nothing but the suppression of overlapping boxes is ever called.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from nstcore.faces._boxes import keep_best


def detector() -> Any:
    """The reference with its default options, or None when it or PyTorch is not installed."""
    if find_spec("torch") is None or find_spec("facenet_pytorch") is None:
        return None
    _stand_in(import_module("torch"))
    return import_module("facenet_pytorch").MTCNN(keep_all=True)


def _stand_in(torch: Any) -> None:
    def batched_nms(boxes: Any, scores: Any, groups: Any, limit: float) -> Any:
        apart = boxes + (groups.to(boxes) * (boxes.max() + 1 if len(boxes) else 0))[:, None]
        return torch.from_numpy(keep_best(apart.numpy(), scores.numpy(), limit))

    needed: dict[str, dict[str, dict[str, Any]]] = {
        "requests": {"requests": {}, "requests.adapters": {"HTTPAdapter": None}},
        "torchvision": {
            "torchvision": {},
            "torchvision.transforms": {"functional": None},
            "torchvision.ops": {},
            "torchvision.ops.boxes": {"batched_nms": batched_nms},
        },
    }
    for package, modules in needed.items():
        if find_spec(package) is None:
            for name, contents in modules.items():
                sys.modules[name] = ModuleType(name)
                sys.modules[name].__dict__.update(contents)
