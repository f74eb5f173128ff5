"""The options of ``nst faces train``; their defaults are those of `nstcore.faces.TrainSettings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nstcore.faces.augment import Augmentation
from nstcore.faces.train_settings import TrainSettings

DEFAULT, CHANGES = TrainSettings(), Augmentation()


def _option(words: str, *names: str, **limits: Any) -> Any:
    return typer.Option(*names, help=words, **limits)


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of folders, one a class.", show_default=False)]
Output = Annotated[Path, _option("The encoder to write: .npz", "-o", "--output")]
FromScratch = Annotated[bool, _option("The small network, untrained (default).", "--from-scratch")]
FineTune = Annotated[bool, _option("The face encoder's last layers.", "--fine-tune")]
From = Annotated[Path | None, _option("Go on from an encoder of an earlier training.", "--from")]
Last = Annotated[int, _option("Layers that --fine-tune trains.", min=1)]
Align = Annotated[
    bool | None,
    _option(
        "Find and turn faces (default), or take the middle square of a picture, for any other classes; the encoder "
        "does the same when it is used.",
        "--align/--no-align",
        show_default=False,
    ),
]
Loss = Annotated[str, _option("triplet, contrastive or logistic.")]
Mining = Annotated[str, _option("batch_all, semi_hard, batch_hard, distance_weighted or random.")]
Margin = Annotated[float | None, _option("Alpha: 0.2, a squared distance; of contrastive pairs 2.0, a distance.")]
Steps = Annotated[int, _option("At most.", min=1)]
People = Annotated[int, _option("Classes in a batch.", min=2)]
Photos = Annotated[int, _option("Photographs of each.", min=2)]
LearningRate = Annotated[float, _option("Of AdamW.")]
WeightDecay = Annotated[float, _option("Of AdamW.")]
WarmUp = Annotated[int, _option("Steps until the rate is reached.", min=0)]
Clip = Annotated[float, _option("Largest length of the gradient; 0: any.")]
Flip = Annotated[bool, _option("Mirror every second picture.", "--flip/--no-flip")]
Shift = Annotated[float, _option("Move pictures by up to this share of their side.")]
Scale = Annotated[float, _option("Enlarge or shrink them by up to this share.")]
Light = Annotated[float, _option("Change brightness and contrast by up to this share.")]
Validation = Annotated[float, _option("Share of the people that is not trained on; 0: nobody judges.")]
Patience = Annotated[int, _option("Looks without a better one before it stops; 0: never.", min=0)]
Every = Annotated[int, _option("Steps between two looks, and two lines.", "--evaluate-every", min=1)]
Size = Annotated[int, _option("Numbers in an encoding, from scratch.", min=1)]
Side = Annotated[int, _option("Pixels of a chip, from scratch; a multiple of 16.")]
Seed = Annotated[int, _option("Of all that is random.", min=0)]
Head = Annotated[Path | None, _option("Write the head of --loss logistic: .npz")]
Checkpoint = Annotated[Path | None, _option("Write the state here at every look.")]
Resume = Annotated[Path | None, _option("Continue the run of this state, bit for bit.")]
History = Annotated[Path | None, _option("Write every step: .csv")]
Plot = Annotated[Path | None, _option("Draw losses and errors: .png, .jpg or .webp")]
AsJson = Annotated[bool, _option("Print a summary as JSON.", "--json")]
