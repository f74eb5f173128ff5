"""Are two pictures of one person?"""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore import images
from nstcore.faces.answers import Verification
from nstcore.faces.calibration import Calibration
from nstcore.faces.decide import chosen_threshold, verification
from nstcore.faces.encoder import Encoder, load_encoder
from nstcore.faces.head import VerificationHead
from nstcore.faces.pipeline import encode_one, picture_name


def verify(
    image_a: images.Source,
    image_b: images.Source,
    threshold: float | None = None,
    *,
    encoder: Encoder | None = None,
    calibration: Calibration | None = None,
    head: VerificationHead | None = None,
    **options: Any,
) -> Verification:
    """Whether two pictures, each with one face, show the same person.

    Args:
        image_a, image_b: as `nstcore.images.load` takes them.
        threshold: the largest Euclidean distance of one person's encodings; None takes the calibration's.
        encoder: another one than the package's.
        calibration: another one than the encoder's, such as a gallery's.
        head: gives the probability, instead of the calibration; the threshold decides all the same.
        options: `flip`, `jitter`, `seed`, `min_size`, `min_score`, `max_pixels`, as `encode_faces`.

    Raises:
        NoFaceError, SeveralFacesError: a picture without a face, or with several; the message names the file.
        ImageError, ShapeError, DTypeError, ArgumentError: what is no picture, an option outside its range, or a
            head of another encoder.

    Example:
        >>> from nstcore.demo import picture_path
        >>> answer = verify(picture_path("astronaut"), picture_path("astronaut"))
        >>> answer.same, answer.distance, answer.calibrated
        (True, 0.0, False)
    """
    encoder = encoder or load_encoder()
    calibration = calibration or encoder.calibration
    limit = chosen_threshold(calibration, threshold)
    if head is not None:
        head.check_encoder(encoder.digest, encoder.size)
    names = [_name(image, which) for image, which in ((image_a, "first"), (image_b, "second"))]
    a, b = (
        encode_one(image, task="verify", name=name, encoder=encoder, **options)[1].astype(np.float64)
        for image, name in zip((image_a, image_b), names, strict=True)
    )
    distance = float(np.linalg.norm(a - b))
    probability = None if head is None else float(head.probability(a, b)[0])
    return verification(distance, calibration, threshold=limit, compared=names[1], probability=probability)


def _name(image: images.Source, which: str) -> str:
    name = picture_name(image)
    return f"the {which} picture" if name == "the picture" else name
