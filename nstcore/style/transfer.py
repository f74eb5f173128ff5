"""`transfer`: a photograph and paintings in, a painted photograph out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nstcore.backend import current_backend
from nstcore.backend.memory import reuse
from nstcore.errors import ArgumentError, OutputError
from nstcore.files import PathLike, check_output
from nstcore.images import load_within
from nstcore.models.vgg import VGG, vgg16
from nstcore.ops._op import whole
from nstcore.style import checkpoint as checkpoints
from nstcore.style import colors
from nstcore.style.extra import ExtraAt
from nstcore.style.film import Film
from nstcore.style.frames import files_among
from nstcore.style.plan import Held, Plan, predict
from nstcore.style.result import Progress, Result
from nstcore.style.run import Run, Saving
from nstcore.style.scene import Scene, check_sides, narrowest, read_scene
from nstcore.style.settings import Level, Settings
from nstcore.style.still import Still, StillTerm

Array = NDArray[Any]


def transfer(
    content: Any,
    styles: Any,
    *,
    net: VGG | None = None,
    callback: Callable[[Progress], None] | None = None,
    start: Any = None,
    regions: Sequence[Any] | None = None,
    style_masks: Sequence[Any] | None = None,
    checkpoint: PathLike | None = None,
    checkpoint_every: int = 50,
    resume: PathLike | None = None,
    film: PathLike | None = None,
    film_every: int | None = None,
    max_pixels: int = 100_000_000,
    **options: Any,
) -> Result:
    """Paint `content` in the style of `styles` by minimising J = α J_content + β J_style + γ TV over the pixels.

    content: path, Pillow image, or array (h, w, 3) in [0, 1] or uint8. styles: one such picture or several.
    options: the fields of `Settings` (size, steps, content_weight, …). net: a VGG, which is moved where the backend
    computes; by default VGG-16 with the embedded weights.
    callback: called with a `Progress` after each step; Ctrl-C ends the run and keeps what is done.
    start: the picture to start from instead of `init`.
    regions: one picture a style, bright where that style goes (grey for soft edges), stretched to the photograph.
    style_masks: one picture a style, or None, bright where the painting counts.
    checkpoint: file to save the run in every `checkpoint_every` steps, when it is interrupted and at the end; an
    unfinished run that is there already is not replaced. resume: such a file to continue from, bit for bit on the same
    instruction set; everything else as it was, or it is refused. `memory` may differ; tiles round otherwise.
    film: .gif, .webp or .mp4 (which needs PyAV) to write the run to, a picture every `film_every` steps; None for about
    a hundred in all. They are as large as the result, at most 1024 pixels.
    max_pixels: largest picture that is read.

    Gives a `Result`; the same seed gives the same picture whatever the number of threads.
    Raises `ImageError`, `ArgumentError`, `CheckpointError`, `NonFiniteError` when the loss stops being a number, and
    `OutputError` when the film or the checkpoint cannot be written; the ``result`` of these two holds the last good
    picture.
    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016; from coarse to
    fine as in Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer", CVPR 2017, section 6.
    """
    settings = settings_of(options)
    many = as_list(styles)
    settings.blend_shares(len(many))
    every = whole("style", "checkpoint_every", checkpoint_every)
    if every < 1:
        raise ArgumentError(f"[style] expects checkpoint_every as a whole number from 1, got {every}")
    if film is None and film_every is not None:
        raise ArgumentError("[style] film_every is without effect unless film is given")
    inputs = content, many, start, regions, style_masks
    if checkpoint is not None:
        check_output(checkpoint, inputs=files_among((*inputs, film)))
        if resume is None or Path(resume).resolve() != Path(checkpoint).resolve():
            checkpoints.check_free(checkpoint)
    network = network_of(net, settings)
    scene = read_scene(content, many, settings, start, regions, style_masks, max_pixels)
    levels = settings.levels(narrowest(scene, settings), check_sides(network, settings, scene))
    if checkpoint is not None:
        checkpoints.check_fits(scene.photo.shape, network.dtype.itemsize, settings)
    steps = sum(level.steps for level in levels)
    filmed = None if film is None else Film(film, steps, film_every, (*inputs, resume, checkpoint))
    made_with = checkpoints.identity(network, scene, settings) if checkpoint or resume else {}
    saving = None if checkpoint is None else Saving(Path(checkpoint), every, made_with)
    restored = None if resume is None else (lambda: checkpoints.load(resume, made_with))
    portrait = portrait_of(content, max_pixels)
    return paint(network, scene, settings, levels, callback, saving, restored, filmed, portrait=portrait)


def paint(
    network: VGG,
    scene: Scene,
    settings: Settings,
    levels: list[Level],
    callback: Callable[[Progress], None] | None = None,
    saving: Saving | None = None,
    restored: Callable[[], checkpoints.Snapshot] | None = None,
    film: Film | None = None,
    after: Still | None = None,
    portrait: Callable[[], Array] | None = None,
) -> Result:
    """One run, of pictures that are read and checked. after: what it has in common with the frame before.

    portrait: gives the photograph in more pixels, for its faces.
    """
    colored, finish = recolored(scene, settings, None if after is None else after.first)
    network.to(current_backend())  # once, not in every step
    faces = kept_faces(network, settings, scene.photo, portrait, after is not None)
    extras: list[ExtraAt] = [] if faces is None else [lambda small: faces.term(small, settings.face_weight)]
    if after is not None and after.weight and colored.start is not None:
        term = StillTerm(colored.start, after.still, after.weight)
        extras.append(lambda _: term)
    with reuse():
        run = Run(network, colored, settings, levels, callback, finish, saving, extras)
        if restored is not None:
            run.restore(restored())
        try:
            result = run.go() if film is None else film.of(run)
        except OutputError as error:  # the picture is not to be lost with the film or the checkpoint
            if run.rows:
                error.result = run.result("stopped by an error")
            raise
    if faces is not None:
        result.faces = faces.distances(result.image)
    return result


def plan_transfer(
    content: Any,
    styles: Any,
    *,
    net: VGG | None = None,
    start: Any = None,
    regions: Sequence[Any] | None = None,
    style_masks: Sequence[Any] | None = None,
    max_pixels: int = 100_000_000,
    **options: Any,
) -> Plan:
    """What `transfer` would need with these pictures and options: sizes, steps, peak memory in bytes, seconds.

    Reads the pictures and times a small one; nothing is painted. The memory is that of the whole process, counted array
    by array. Raises what `transfer` raises, `ArgumentError` too where `memory` is too little, naming the least.

    >>> grey = np.full((48, 64, 3), 0.5)
    >>> found = plan_transfer(grey, grey, size=64, steps=10)
    >>> found.levels, found.peak < 300e6
    ([Level(size=64, steps=10)], True)
    """
    settings, many = settings_of(options), as_list(styles)
    settings.blend_shares(len(many))
    network = network_of(net, settings)
    scene = read_scene(content, many, settings, start, regions, style_masks, max_pixels)
    levels = settings.levels(narrowest(scene, settings), check_sides(network, settings, scene))
    held = Held.by(scene)
    network.to(current_backend())
    faces = kept_faces(network, settings, scene.photo, portrait_of(content, max_pixels))
    term = None if faces is None else faces.term(scene.photo, settings.face_weight)
    del scene
    return predict(network, settings, held, levels, term)


def portrait_of(content: Any, max_pixels: int) -> Callable[[], Array] | None:
    """Reads the photograph as large as its faces are looked for in; None where it can be read only once."""
    if hasattr(content, "read"):
        return None
    from nstcore.style.faces_term import SEARCHED

    return lambda: load_within(content, SEARCHED, max_pixels=max_pixels)


def kept_faces(
    network: VGG, settings: Settings, photo: Array, portrait: Callable[[], Array] | None, lenient: bool = False
) -> Any:
    """The faces that `keep_face` keeps, or None without it; `ImageError` when there are none, None if lenient.

    photo: at the final size; portrait: see `paint`.
    """
    if not settings.keep_face:
        return None
    from nstcore.style.faces_term import Faces, no_face

    grey = colors.as_grey if settings.colors == "luminance" else (lambda picture: picture)
    large = photo if portrait is None else portrait()
    found = Faces.of(large, grey(large), network.dtype)
    if found is not None:
        found = found.clear(grey(photo))
    if found is None and not lenient:
        raise no_face(settings.size)
    return found


def network_of(net: VGG | None, settings: Settings) -> VGG:
    """The network that was passed, or VGG-16, with all layers that are asked for."""
    if net is not None and not isinstance(net, VGG):
        raise ArgumentError(f"[style] expects net as a VGG (nst.models.vgg16()), got {type(net).__name__}")
    network = net or vgg16(pooling=settings.pooling)
    network.check_layers([*settings.content_shares, *settings.style_shares])
    return network


def settings_of(options: dict[str, Any]) -> Settings:
    """`Settings` with these options; `ArgumentError`, which lists them, for one that does not exist."""
    unknown = sorted(set(options) - set(Settings.names()))
    if unknown:
        raise ArgumentError(f"[style] has no option {unknown[0]!r}; it has {', '.join(Settings.names())}")
    return Settings(**options)


def as_list(styles: Any) -> list[Any]:
    """One picture or several as a list; `ArgumentError` when there are none."""
    several = isinstance(styles, (list, tuple)) or (isinstance(styles, Iterator) and not hasattr(styles, "read"))
    many = [*styles] if several else [styles]
    if not many:
        raise ArgumentError("[style] expects at least one style picture, got none")
    return many


def recolored(scene: Scene, settings: Settings, first: Array | None = None) -> tuple[Scene, Callable[[Array], Array]]:
    """The scene in the colours that it is painted in, and what turns a picture of the run into the result.

    first: the photograph whose colours the paintings take, when it is another one.
    """
    photo, like = scene.photo, scene.photo if first is None else first
    if settings.colors == "match":
        paintings = [colors.match_colors(painting, like) for painting in scene.paintings]
        return replace(scene, paintings=paintings), lambda image: image
    if settings.colors == "luminance":
        from nstcore.images import resize_to

        paintings = [colors.match_luminance(painting, like) for painting in scene.paintings]
        start = None if scene.start is None else colors.as_grey(scene.start)
        grey = replace(scene, photo=colors.as_grey(photo), paintings=paintings, start=start)
        return grey, lambda image: colors.with_luminance(resize_to(photo, *image.shape[:2]), image)
    return scene, lambda image: image
