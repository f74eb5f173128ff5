"""Static pages: a walk through layers and units, and a style's Gram matrix pair by pair."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import page
from nstcore.images import resize_to, to_bytes
from nstcore.visualize.gram import ChannelPair, Correlations
from nstcore.visualize.receptive_field import ReceptiveField
from nstcore.visualize.show import Shown, plain, spotlight

Array = NDArray[Any]
STYLE = """
nav { position: sticky; top: 0; background: Canvas; padding: .6rem 0; z-index: 1; border-bottom: 1px solid #8884 }
nav a { margin-right: .7rem; white-space: nowrap } nav a.here { font-weight: bold; text-decoration: none }
.controls { display: flex; flex-wrap: wrap; gap: .3rem .7rem; align-items: center; margin-top: .4rem }
.controls button { font: inherit; font-size: .9rem; padding: .25rem .8rem; cursor: pointer }
.controls button:disabled { cursor: default } .controls label { white-space: nowrap }
section, .unit { scroll-margin-top: calc(var(--nav, 6rem) + .5rem) }
body.single section.layer:not(.here) { display: none }
.unit { display: flex; gap: .8rem; margin: .5rem 0; align-items: flex-start }
.unit h3 { font-size: .95rem; margin: 0; flex: 0 0 5.5rem }
.unit h3 small { display: block; font-weight: normal; opacity: .7 }
.strips { flex: 1 1 auto; min-width: 0 } .strip { display: grid; gap: 3px; margin-bottom: 3px; max-width: 62rem }
.strip img { border-radius: 0 } .strip img.px { image-rendering: pixelated }
.pair { border-top: 1px solid #8884; padding-top: .8rem; margin-top: 1.2rem }
.pair h3 { margin: .2rem 0; font-size: 1rem }
.pair .strip { max-width: 40rem } .maps { display: flex; flex-wrap: wrap; gap: 1rem } .maps figure { flex: 0 1 20rem }
.matrix img { image-rendering: pixelated; max-width: 34rem } .matrix { flex: 0 1 34rem }
@media (max-width: 40rem) {
  nav .links { overflow-x: auto; white-space: nowrap; padding-bottom: .3rem }
  .controls button { min-height: 2.6rem; flex: 1 1 8rem }
  .unit { display: block } .unit h3 small { display: inline; margin-left: .5rem }
}
"""
_BRIGHT = 99.0  # per cent of a product's places that are not drawn at full brightness
SCRIPT = """<script>
const sections = [...document.querySelectorAll('section.layer')];
const links = [...document.querySelectorAll('nav a')], nav = document.querySelector('nav');
let at = -1, jumped = false;
function measure() { document.documentElement.style.setProperty('--nav', nav.offsetHeight + 'px'); }
function go(element) { jumped = true; element.scrollIntoView(); }
function mark(i) {
  if (i === at) return;
  at = i;
  sections.forEach((s, k) => s.classList.toggle('here', k === at));
  links.forEach((a, k) => a.classList.toggle('here', k === at));
  document.querySelector('#previous').disabled = at === 0;
  document.querySelector('#next').disabled = at === sections.length - 1;
  const bar = links[at].parentElement, link = links[at];
  bar.scrollLeft = link.offsetLeft - bar.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;
}
function show(i) {
  if (i < 0 || i >= sections.length) return;
  mark(i);
  history.replaceState(null, '', '#' + sections[i].id);
  go(sections[i]);
}
function follow() {
  const name = decodeURIComponent(location.hash.slice(1));
  const i = sections.findIndex(s => name === s.id || name.startsWith(s.id + ':'));
  if (i < 0) return false;
  mark(i);
  go(document.getElementById(name) || sections[i]);
  return true;
}
function look() {
  if (document.body.classList.contains('single')) return;
  if (jumped) { jumped = false; return; }  // the section that was asked for may be too short to reach the top
  const line = nav.getBoundingClientRect().bottom + 40;
  const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
  let i = sections.findLastIndex(s => s.getBoundingClientRect().top <= line);
  if (end && sections.at(-1).getBoundingClientRect().top < innerHeight) i = sections.length - 1;
  mark(Math.max(0, i));
}
let waits = false;
addEventListener('scroll', () => {
  if (waits) return;
  waits = true;
  requestAnimationFrame(() => { waits = false; look(); });
}, { passive: true });
addEventListener('hashchange', follow);
addEventListener('resize', measure);
links.forEach(a => a.addEventListener('click', () => { if (a.hash === location.hash) follow(); }));
document.querySelector('#previous').addEventListener('click', () => show(at - 1));
document.querySelector('#next').addEventListener('click', () => show(at + 1));
document.querySelector('#single').addEventListener('change', e => {
  document.body.classList.toggle('single', e.target.checked); go(sections[at]);
});
document.querySelectorAll('input[data-kind]').forEach(box => box.addEventListener('change', () =>
  document.querySelectorAll('.strip.' + box.dataset.kind).forEach(s => s.hidden = !box.checked)));
document.addEventListener('keydown', e => {
  if (e.altKey || e.ctrlKey || e.metaKey) return;
  if (e.key === 'ArrowRight') show(at + 1); else if (e.key === 'ArrowLeft') show(at - 1);
});
measure();
if (!follow()) mark(0);
</script><style>.strip[hidden] { display: none }</style>"""


def write_patches(
    path: Path,
    title: str,
    words: str,
    rows: Mapping[tuple[str, int], Sequence[Shown]],
    fields: Mapping[str, ReceptiveField],
    notes: Mapping[str, str],
    kinds: Sequence[str],
    count: int,
) -> None:
    """Write the page of the layers in `fields`, from shallow to deep, with the units of `rows`.

    words: HTML under the title. notes: a plain sentence by layer, such as how many pictures are smaller than the field.
    """
    links = " ".join(f'<a href="#{html.escape(name)}">{html.escape(name)}</a>' for name in fields)
    boxes = " ".join(
        f'<label><input type="checkbox" autocomplete="off" checked data-kind="{kind}"> {kind}</label>'
        for kind in kinds
        if len(kinds) > 1
    )
    single = '<label><input type="checkbox" autocomplete="off" id="single"> one layer at a time</label>'
    steps = (
        '<button type="button" id="previous" title="previous layer (←)">‹ previous</button>'
        '<button type="button" id="next" title="next layer (→)">next ›</button>'
    )
    parts = [f'<nav><div class="links">{links}</div><div class="controls">{steps} {single} {boxes}</div></nav>']
    for name, field in fields.items():
        mine = {unit: shown for (layer, unit), shown in rows.items() if layer == name}
        units = "".join(_unit(name, unit, shown, kinds, count, field) for unit, shown in mine.items())
        parts.append(
            f'<section class="layer" id="{html.escape(name)}"><h2>{html.escape(name)}</h2><p>{_describe(field)} '
            f"{html.escape(notes.get(name, ''))}</p>{units}</section>"
        )
    page.write(path, title, words, [*parts, SCRIPT], made_by="nst patches", style=STYLE)


def _describe(field: ReceptiveField) -> str:
    if field.stride == (0, 0):
        return "A unit sees the whole picture."
    return (
        f"A unit sees {field.size[0]} × {field.size[1]} pixels; its neighbour's field begins "
        f"{field.stride[0]} pixel{'s' * (field.stride[0] > 1)} further on."
    )


def _unit(layer: str, unit: int, shown: Sequence[Shown], kinds: Sequence[str], count: int, field: Any) -> str:
    value = plain(shown[0].patch.activation) if shown else "never fires"
    strips = "".join(_strip(shown, kind, count, max(field.size)) for kind in kinds) if shown else ""
    return (
        f'<div class="unit" id="{html.escape(layer)}:{unit}"><h3>unit {unit}<small>{value}</small></h3>'
        f'<div class="strips">{strips}</div></div>'
    )


def _strip(shown: Sequence[Shown], kind: str, count: int, side: int) -> str:
    """A row of cells, each with its picture's name, its activation and its place as a title."""
    cells = []
    for each in shown:
        patch = each.patch
        top, left, bottom, right = patch.box
        text = html.escape(f"{patch.name}: {patch.activation:.4g}, rows {top} to {bottom}, columns {left} to {right}")
        pixelated = ' class="px"' if side < 24 else ""
        uri = page.data_uri(each.cells[kind], lossless=side < 24)
        height, width = each.cells[kind].shape[:2]
        lazily = f'width="{width}" height="{height}" loading="lazy" decoding="async"'
        cells.append(f'<img{pixelated} src="{uri}" alt="{text}" title="{text}" {lazily}>')
    return f'<div class="strip {kind}" style="grid-template-columns: repeat({count}, 1fr)">{"".join(cells)}</div>'


def write_gram(
    path: Path,
    names: Sequence[str],
    pictures: Sequence[Array],
    found: Sequence[Correlations],
    pairs: Sequence[ChannelPair],
    differing: Sequence[ChannelPair],
    cells: Mapping[tuple[str, int], Sequence[Shown]],
    count: int,
    source: str,
) -> None:
    """Write the page of one or two pictures' Gram matrices; `source` says where the patches come from."""
    layer, order = found[0].layer, found[0].order
    matrices = [
        page.figure(picture, name)
        + _matrix(each.correlations[np.ix_(order, order)], f"{name}: correlations of {layer}")
        for name, picture, each in zip(names, pictures, found, strict=True)
    ]
    rows = "".join(f'<div class="row matrix-row">{matrix}</div>' for matrix in matrices)
    parts = [
        f"<section><h2>The matrix</h2><p>Each side of a matrix lists the {len(order)} channels, those that fire "
        "together beside each other; white is 0, red 1, blue −1. A style is this table: which channels fire "
        f"together, whatever the place.</p>{rows}</section>"
    ]
    overlays = list(zip(names, pictures, found, strict=True))
    if differing:
        head = "What makes the two styles differ"
        parts.append(_pairs(head, differing, overlays, cells, layer, count, "of the difference of the styles"))
    parts.append(_pairs(f"What fires together in {names[0]}", pairs, overlays[:1], cells, layer, count, None))
    title = f"The style of {' and '.join(names)} in {layer}"
    words = (
        "G<sub>kk′</sub> is the mean of a<sub>k</sub> a<sub>k′</sub> over all places; a correlation is "
        f"G<sub>kk′</sub> / √(G<sub>kk</sub> G<sub>k′k′</sub>). {html.escape(source)}"
    )
    page.write(path, title, words, parts, made_by="nst gram", style=STYLE)


def _matrix(correlation: Array, caption: str) -> str:
    text = html.escape(caption)
    uri = page.data_uri(matrix_picture(correlation), lossless=True)
    return f'<figure class="matrix"><img src="{uri}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def matrix_picture(correlation: Array) -> Array:
    """A correlation matrix as uint8 (c, c, 3): white is 0, red 1, blue −1."""
    strength = np.abs(correlation)[:, :, None] ** 0.8
    color = np.where(correlation[:, :, None] >= 0, (178, 24, 43), (33, 102, 172))
    return np.rint(255 + strength * (color - 255.0)).astype(np.uint8)


def _pairs(
    head: str, pairs: Sequence[ChannelPair], overlays: Sequence[tuple[str, Array, Correlations]],
    cells: Mapping[tuple[str, int], Sequence[Shown]], layer: str, count: int, share_of: str | None,
) -> str:  # fmt: skip
    """A section with the pairs: both units' patches, and where in each picture they fire together."""
    blocks = []
    for pair in pairs:
        ratio = f", {pair.score:.1%} {share_of}" if share_of else ""
        alone = pair.first == pair.second
        title = f"{layer}: {pair.first} and {pair.second}, correlation {pair.correlation:.2f}{ratio}"
        if alone:
            title = f"{layer}: {pair.first} with itself{ratio}"
        strips = "".join(
            f'<div class="unit"><h3>unit {unit}</h3><div class="strips">'
            f"{_strip(cells[layer, unit], 'patch', count, found.field.size[0])}</div></div>"
            for unit in ((pair.first,) if alone else (pair.first, pair.second))
            for found in [overlays[0][2]]
        )
        products = [found.together(pair.first, pair.second) for _, _, found in overlays]
        strongest = max(float(np.percentile(product, _BRIGHT)) for product in products)
        maps = "".join(
            page.figure(
                together_picture(picture, found, pair, strongest),
                f"{name}: mean of the product {plain(found.gram[pair.first, pair.second])}",
            )
            for name, picture, found in overlays
        )
        blocks.append(f'<div class="pair"><h3>{html.escape(title)}</h3>{strips}<div class="maps">{maps}</div></div>')
    return f"<section><h2>{html.escape(head)}</h2>{''.join(blocks)}</section>"


def together_picture(picture: Array, found: Correlations, pair: ChannelPair, strongest: float) -> Array:
    """The picture, bright where both channels fire, by the square root of the product over `strongest`."""
    product = np.maximum(found.together(pair.first, pair.second), 0) / (strongest or 1.0)
    large = resize_to(np.sqrt(np.clip(product, 0, 1)).astype(np.float32), *picture.shape[:2])
    pixels = to_bytes(picture)
    return spotlight(pixels, np.clip(large, 0, 1) + 1e-9) if strongest else spotlight(pixels, np.zeros(large.shape))
