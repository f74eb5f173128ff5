"""Writes tests/unit/mtcnn_reference.json: what facenet-pytorch's MTCNN finds in the photographs of the tests.

    NSTCORE_TEST_DATA=... python tools/mtcnn_reference.py

Needs PyTorch and `pip install --no-deps facenet-pytorch==2.6.0`. The reference gets the pixels as nstcore reads them,
so that colour profiles and transparency play no part.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import mtcnn_pytorch  # noqa: E402

from nstcore.demo import picture_path  # noqa: E402
from nstcore.images import load  # noqa: E402

OUTPUT = ROOT / "tests/unit/mtcnn_reference.json"


def main() -> None:
    torch = __import__("torch")
    detector = mtcnn_pytorch.detector()
    if detector is None:
        sys.exit("facenet_pytorch or torch is not installed")
    data = Path(os.environ["NSTCORE_TEST_DATA"]) / "faces"
    named = {f"data/{p.relative_to(data)}": p for p in sorted([*data.glob("photos/*/*"), *data.glob("groups/*")])}
    named |= {f"demo/{name}": picture_path(name) for name in ("astronaut", "chelsea", "coffee", "rocket")}
    faces: dict[str, list[dict[str, Any]]] = {}
    for name, path in named.items():
        pixels = np.rint(load(path) * 255).astype(np.uint8)
        boxes, scores, landmarks = detector.detect(Image.fromarray(pixels), landmarks=True)
        found = [] if boxes is None else zip(boxes, scores, landmarks, strict=True)
        faces[name] = [
            {"box": _rounded(box), "score": round(float(score), 5), "landmarks": _rounded(points)}
            for box, score, points in found
        ]
    source = f"facenet-pytorch 2.6.0 on PyTorch {torch.__version__}, pixels as nstcore.images.load gives them"
    OUTPUT.write_text(json.dumps({"source": source, "faces": faces}, indent=1) + "\n", encoding="utf-8")


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, np.float64), 2).tolist()


if __name__ == "__main__":
    main()
