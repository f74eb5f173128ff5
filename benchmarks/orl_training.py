"""What training gives on ORL, split by person: python benchmarks/orl_training.py --help.

40 people with 10 photographs each: for each seed 30 are trained on, 10 are never seen. From nothing, nobody is kept
apart to choose weights by (six people would choose by chance): those of the last step count. Needs the folder
NSTCORE_TEST_DATA with faces/orl.npz. Writes tables (Markdown and JSON) and curves (PNG).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nstcore as nst
from nstcore import _chart, images
from nstcore.faces import train_encoder, train_report
from nstcore.faces.evaluate import roc
from nstcore.faces.head import FORMS, VerificationHead
from nstcore.faces.oneshot import one_shot
from nstcore.faces.photos import from_arrays
from nstcore.faces.scores import score

UNSEEN = 10
MININGS = ("random", "distance_weighted", "semi_hard", "batch_hard", "batch_all")
DECAYS = (1e-2, 1e-1, 1.0, 100.0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minings", nargs="+", default=list(MININGS))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--part", choices=("scratch", "pretrained", "both"), default="both")
    parser.add_argument("--out", type=Path, default=Path("orl"), help="folder to write to")
    return parser.parse_args()


def split(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which photographs are of the people who are never seen."""
    return np.isin(labels, np.random.default_rng(seed).permutation(np.unique(labels))[:UNSEEN])


def judged(encodings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Verification and one-shot identification of people never seen, no encoding of theirs used for any choice."""
    found, shot = score(encodings, labels), one_shot(encodings, labels, UNSEEN)
    return {"eer": found.eer, "auc": found.auc, "one_shot": shot.accuracy, "low": shot.low, "high": shot.high}


def scratch(args: argparse.Namespace, pictures: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """The small network from nothing, by each mining and seed; `untrained` is the network that each run starts from."""
    rows = []
    for seed in args.seeds:
        unseen = split(labels, seed)
        test = from_arrays(pictures[unseen], labels[unseen], 64)
        untrained = nst.models.embedding_net(seed=seed)
        rows.append(
            {"seed": seed, "by": "untrained", "seconds": 0.0, **judged(untrained.encode(test.pictures), test.labels)}
        )
        for mining in args.minings:
            start = time.perf_counter()
            trained = train_encoder(
                pictures[~unseen], labels[~unseen], mining=mining, steps=args.steps, seed=seed, validation=0
            )
            row = {"seed": seed, "by": mining, "seconds": time.perf_counter() - start}
            rows.append({**row, **judged(trained.net.encode(test.pictures), test.labels)})
            print(json.dumps(rows[-1]), flush=True)
            if seed == args.seeds[0]:
                images.save(args.out / f"training_{mining}.png", train_report.draw(trained.history))
                train_report.write_csv(args.out / f"training_{mining}.csv", trained.history)
    return rows


def crops(pictures: np.ndarray) -> np.ndarray:
    """The same square of every photograph, brought to the chip of the face encoder."""
    return from_arrays(pictures, np.arange(len(pictures)), 150).pictures


def pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(labels), 1)
    return first, second, labels[first] == labels[second]


def pretrained(args: argparse.Namespace, pictures: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """The face encoder as it is, with a logistic head on its frozen encodings, and with its last layers trained."""
    net = nst.models.face_encoder()
    chips = crops(pictures)
    z = net.encode(chips)
    rows = []
    for seed in args.seeds:
        unseen = split(labels, seed)
        rows.append({"seed": seed, "by": "encoder, distance", **judged(z[unseen], labels[unseen])})
        first, second, same = pairs(labels[unseen])
        test = z[unseen]
        for form in FORMS:
            head = chosen_head(z[~unseen], labels[~unseen], form, seed)
            eer = roc(1 - head.probability(test[first], test[second]), same)
            rows.append({"seed": seed, "by": f"encoder, head {form}", "eer": eer.eer, "auc": eer.auc})
        start = time.perf_counter()
        for last in (1, 2):
            tuned = train_encoder(
                pictures[~unseen], labels[~unseen], start="fine-tune", last=last, mining="semi_hard", steps=60,
                seed=seed, learning_rate=1e-4, evaluate_every=10,
            )  # fmt: skip
            row = {"seed": seed, "by": f"fine-tuned, last {last}", "best_step": tuned.best_step}
            rows.append(
                {
                    **row,
                    "seconds": time.perf_counter() - start,
                    **judged(tuned.net.encode(chips[unseen]), labels[unseen]),
                }
            )
        for row in rows[-5:]:
            print(json.dumps(row), flush=True)
    return rows


def chosen_head(z: np.ndarray, labels: np.ndarray, form: str, seed: int) -> VerificationHead:
    """A head on the people trained on, its decay the best of `DECAYS` for six of them that it was not fitted on."""
    held = np.isin(labels, np.random.default_rng((seed, 3)).permutation(np.unique(labels))[:6])
    best: tuple[float, float] = (2.0, DECAYS[0])
    for decay in DECAYS:
        head = fitted(z[~held], labels[~held], form, decay)
        first, second, same = pairs(labels[held])
        best = min(best, (roc(1 - head.probability(z[held][first], z[held][second]), same).eer, decay))
    return fitted(z, labels, form, best[1])


def fitted(z: np.ndarray, labels: np.ndarray, form: str, decay: float) -> VerificationHead:
    head = VerificationHead(z.shape[1], form)
    first, second, same = pairs(labels)
    two = np.random.default_rng(0).permutation(np.flatnonzero(~same))[: 5 * int(same.sum())]
    chosen = np.concatenate([np.flatnonzero(same), two])
    head.fit(z, (first[chosen], second[chosen]), same[chosen], decay=decay, steps=40)
    return head


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: mean over the seeds, and each seed's own."""
    yield "| | EER, % | AUC | 10-way one-shot, % | s |"
    yield "|---|---|---|---|---|"
    for name in dict.fromkeys(row["by"] for row in rows):
        own = [row for row in rows if row["by"] == name]
        cells = []
        for key, factor, digits in (("eer", 100, 1), ("auc", 1, 4), ("one_shot", 100, 1), ("seconds", 1, 0)):
            values = [factor * row[key] for row in own if key in row]
            each = ", ".join(f"{v:.{digits}f}" for v in values)
            cells.append(f"{np.mean(values):.{digits}f} ({each})" if values else "")
        yield f"| {name} | {' | '.join(cells)} |"


def draw_bars(rows: list[dict[str, Any]], path: Path) -> None:
    """Equal error rates: a dot for each seed, a line for the mean."""
    names = list(dict.fromkeys(row["by"] for row in rows))
    canvas = _chart.Raster(1100, 540)
    top = 1.1 * 100 * max(row["eer"] for row in rows)
    panel = _chart.Panel(canvas, (90, 40, 760, 480), _chart.Axis(0.0, float(len(names))), _chart.Axis(0.0, top))
    for value, text in panel.up.ticks():
        y = panel.place(0, value)[1]
        canvas.line([(90, y), (760, y)], _chart.GRID)
        canvas.text((78, y), text, "rm")
    canvas.text((90, 14), "equal error rate of people never seen, %, a dot a seed")
    entries = []
    for i, name in enumerate(names):
        values = [100 * row["eer"] for row in rows if row["by"] == name]
        color = _chart.COLORS[i % len(_chart.COLORS)]
        for value in values:
            x, y = panel.place(i + 0.5, value)
            canvas.area([(x - 5, y - 5), (x + 5, y - 5), (x + 5, y + 5), (x - 5, y + 5)], color)
        panel.curve([(i + 0.2, float(np.mean(values))), (i + 0.8, float(np.mean(values)))], color, 4)
        entries.append((name, color, 4))
    panel.legend(entries, (790, 40))
    images.save(path, canvas.pixels())


def main() -> None:
    """Train, judge, write."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    data = np.load(Path(os.environ["NSTCORE_TEST_DATA"]) / "faces" / "orl.npz")
    pictures, labels = data["images"], data["labels"]
    for name, run in (("scratch", scratch), ("pretrained", pretrained)):
        if args.part not in (name, "both"):
            continue
        rows = run(args, pictures, labels)
        (args.out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        text = "\n".join(table(rows)) + "\n"
        (args.out / f"{name}.md").write_text(text, encoding="utf-8")
        print(text)
        draw_bars(rows, args.out / f"{name}.png")


if __name__ == "__main__":
    main()
