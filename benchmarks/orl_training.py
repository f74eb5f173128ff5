"""What training gives on ORL, split by person: python benchmarks/orl_training.py --help.

40 people with 10 photographs each: for each seed 30 are trained on, 10 are never seen. From nothing, nobody is kept
apart to choose weights by (six people would choose by chance): those of the last step count. The ten are looked at
every 25 steps for the curves, and nothing is chosen by them. Needs the folder NSTCORE_TEST_DATA with faces/orl.npz.
Writes tables (Markdown), curves (PNG), and rows.jsonl with every run: runs that are there already are not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nstcore as nst
from nstcore import _chart, images, weights
from nstcore.faces import train_encoder, train_report
from nstcore.faces.evaluate import roc
from nstcore.faces.head import FORMS, VerificationHead
from nstcore.faces.oneshot import one_shot
from nstcore.faces.photos import from_arrays
from nstcore.faces.scores import score

Row = dict[str, Any]

UNSEEN = 10
EVERY = 25  # steps between two looks
RUNS: dict[str, dict[str, Any]] = {
    "random": {"mining": "random"},
    "distance-weighted": {"mining": "distance_weighted"},
    "semi-hard": {"mining": "semi_hard"},
    "batch-hard": {"mining": "batch_hard"},
    "batch-all": {"mining": "batch_all"},
    "contrastive": {"loss": "contrastive"},
    "logistic": {"loss": "logistic"},
}
DECAYS = (1e-2, 1e-1, 1.0, 100.0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="from nothing")
    parser.add_argument("--margin", type=float, help="of the contrastive loss, instead of the default")
    parser.add_argument("--steps", type=int, default=600, help="from nothing")
    parser.add_argument("--part", choices=("scratch", "pretrained", "both"), default="both")
    parser.add_argument("--out", type=Path, default=Path("orl"), help="folder to write to")
    return parser.parse_args()


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """ORL: pictures (400, 112, 92) and whose each is."""
    folder = os.environ.get("NSTCORE_TEST_DATA")
    path = Path(folder or "") / "faces" / "orl.npz"
    if not folder or not path.is_file():
        found = f"there is no {path}" if folder else "it is not set"
        sys.exit(f"error: NSTCORE_TEST_DATA is to name a folder with faces/orl.npz (images, labels); {found}")
    with np.load(path) as data:
        return data["images"], data["labels"]


class Rows:
    """The runs that are done, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def has(self, **facts: Any) -> bool:
        return any(all(row.get(key) == value for key, value in facts.items()) for row in self.rows)

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({key: value for key, value in row.items() if key != "curve"}), flush=True)

    def of(self, part: str) -> list[Row]:
        return [row for row in self.rows if row["part"] == part]


def split(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which photographs are of the people who are never seen."""
    return np.isin(labels, np.random.default_rng(seed).permutation(np.unique(labels))[:UNSEEN])


def judged(encodings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Verification and one-shot identification of people never seen, no encoding of theirs used for any choice."""
    found, shot = score(encodings, labels), one_shot(encodings, labels, UNSEEN)
    return {"eer": found.eer, "auc": found.auc, "one_shot": shot.accuracy, "low": shot.low, "high": shot.high}


def judged_head(head: VerificationHead, encodings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """As `judged`, by a head's probabilities, which say nothing about one-shot identification."""
    first, second, same = pairs(labels)
    curve = roc(1 - head.probability(encodings[first], encodings[second]), same)
    return {"eer": curve.eer, "auc": curve.auc}


def scratch(args: argparse.Namespace, done: Rows, pictures: np.ndarray, labels: np.ndarray) -> None:
    """The small network from nothing; `untrained` is the network that each run starts from."""
    for seed in args.seeds:
        unseen = split(labels, seed)
        test = from_arrays(pictures[unseen], labels[unseen], 64)
        facts = {"part": "scratch", "seed": seed}
        start = judged(nst.models.embedding_net(seed=seed).encode(test.pictures), test.labels)
        if not done.has(**facts, by="untrained"):
            done.add(**facts, by="untrained", seconds=0.0, **start)
        for name in args.runs:
            if done.has(**facts, run=name, steps=args.steps):
                continue
            with tempfile.TemporaryDirectory() as folder:
                state = Path(folder) / "state.npz"
                curve: list[tuple[int, float]] = [(0, start["eer"])]
                choices = RUNS[name] | ({"margin": args.margin} if name == "contrastive" and args.margin else {})
                began = time.perf_counter()
                trained = train_encoder(
                    pictures[~unseen], labels[~unseen], steps=args.steps, seed=seed, validation=0, checkpoint=state,
                    evaluate_every=EVERY, callback=looking(state, test, seed, args.steps, curve), **choices,
                )  # fmt: skip
            z = trained.net.encode(test.pictures)
            run = {"run": name, "steps": args.steps, "seconds": time.perf_counter() - began}
            by = name if trained.head is None else f"{name}, by distance"
            done.add(**facts, **run, by=by, **judged(z, test.labels), curve=curve)
            if trained.head is not None:
                done.add(**facts, run=name, steps=args.steps, by=f"{name}, by its head",
                         **judged_head(trained.head, z, test.labels))  # fmt: skip
            if seed == args.seeds[0]:
                images.save(args.out / f"training_{name}.png", train_report.draw(trained.history))
                train_report.write_csv(args.out / f"training_{name}.csv", trained.history)


def looking(state: Path, test: Any, seed: int, steps: int, curve: list[tuple[int, float]]) -> Callable[[Any], None]:
    """A callback that looks at the people never seen, through the checkpoint, and adds (step, error) to `curve`."""
    net = nst.models.embedding_net(seed=seed)

    def look(row: Any) -> None:
        if row.step % EVERY == 0 or row.step == steps:
            arrays = weights.load(state).arrays
            net.load_state_dict({name[4:]: array for name, array in arrays.items() if name.startswith("net.")})
            curve.append((row.step, score(net.encode(test.pictures), test.labels).eer))

    return look


def pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(labels), 1)
    return first, second, labels[first] == labels[second]


def pretrained(args: argparse.Namespace, done: Rows, pictures: np.ndarray, labels: np.ndarray) -> None:
    """The face encoder on one square of every picture: as it is, with logistic heads, and with last layers trained."""
    if all(done.has(part="pretrained", seed=seed, by="last two fine-tuned") for seed in args.seeds):
        return
    chips = from_arrays(pictures, labels, 150).pictures
    z = nst.models.face_encoder().encode(chips)
    for seed in args.seeds:
        unseen = split(labels, seed)
        facts = {"part": "pretrained", "seed": seed}
        if not done.has(**facts, by="distance"):
            done.add(**facts, by="distance", **judged(z[unseen], labels[unseen]))
        for form, sign in zip(FORMS, ("absolute", "χ²"), strict=True):
            name = f"logistic head, {sign}"
            if not done.has(**facts, by=name):
                head = chosen_head(z[~unseen], labels[~unseen], form, seed)
                done.add(**facts, by=name, **judged_head(head, z[unseen], labels[unseen]))
        for last, name in ((1, "last layer fine-tuned"), (2, "last two fine-tuned")):
            if done.has(**facts, by=name):
                continue
            began = time.perf_counter()
            tuned = train_encoder(
                pictures[~unseen], labels[~unseen], start="fine-tune", last=last, mining="semi_hard", steps=60,
                seed=seed, learning_rate=1e-4, evaluate_every=10,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            found = judged(tuned.net.encode(chips[unseen]), labels[unseen])
            done.add(**facts, by=name, best_step=tuned.best_step, seconds=seconds, **found)


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


def table(rows: list[Row]) -> Iterator[str]:
    """Markdown: the mean over the seeds, and in brackets each seed's own."""
    yield f"| {UNSEEN} people never seen | EER, % | AUC | {UNSEEN}-way one-shot, % |"
    yield "|---|---|---|---|"
    for name in dict.fromkeys(row["by"] for row in rows):
        own = sorted((row for row in rows if row["by"] == name), key=lambda row: row["seed"])
        cells = []
        for key, factor, digits in (("eer", 100, 1), ("auc", 1, 3), ("one_shot", 100, 1)):
            values = [factor * row[key] for row in own if key in row]
            each = f" ({', '.join(f'{v:.{digits}f}' for v in values)})" if factor > 1 else ""
            cells.append(f"{np.mean(values):.{digits}f}{each}" if values else "")
        yield f"| {name} | {' | '.join(cells)} |"


def draw_curves(rows: list[Row], path: Path) -> None:
    """The error of people never seen against the step, from the untrained network on: a line a run, mean over seeds."""
    runs: dict[str, list[Any]] = {}
    for row in rows:
        if "curve" in row:
            runs.setdefault(row["run"], []).append(row["curve"])
    lines = {name: np.mean(curves, axis=0) * (1, 100) for name, curves in runs.items()}
    if not lines:
        return
    canvas = _chart.Raster(760, 412)
    last = max(float(line[-1, 0]) for line in lines.values())
    top = 1.05 * max(float(line[:, 1].max()) for line in lines.values())
    panel = _chart.Panel(canvas, (60, 40, 560, 350), _chart.Axis(0.0, last), _chart.Axis(0.0, top))
    panel.frame("equal error rate of 10 people never seen, %", "step")
    for color, line in zip(_chart.COLORS, lines.values(), strict=False):
        panel.curve([(float(x), float(y)) for x, y in line], color)
    entries = [(name, color, 2) for color, name in zip(_chart.COLORS, lines, strict=False)]
    panel.legend(entries, (580, 40))
    images.save(path, canvas.pixels())


def main() -> None:
    """Train, judge, write."""
    args = arguments()
    pictures, labels = photographs()
    args.out.mkdir(parents=True, exist_ok=True)
    done = Rows(args.out / "rows.jsonl")
    for name, run in (("scratch", scratch), ("pretrained", pretrained)):
        if args.part in (name, "both"):
            run(args, done, pictures, labels)
            text = "\n".join(table(done.of(name))) + "\n"
            (args.out / f"{name}.md").write_text(text, encoding="utf-8")
            print(text)
    draw_curves(done.of("scratch"), args.out / "training-orl.png")


if __name__ == "__main__":
    main()
