"""What each option of a recipe is worth on little data: models x recipes x seeds -> a table.

    python tests/support/ablation.py -o runs/ablation --models resnet3d --seeds 0 1 2

Sets: "hard" is made (`har-shards synthetic --hard`: 16 train and 4 val clips a class, 24 test clips
of 12 other groups), "real" is YoYo against Punch of the clips in --real, groups held out; or the
path of a shard set, by its split "grouped". Every run is har-train, then har-eval, in a process of
one thread. A run that is finished is not run again, one that was stopped goes on: the same command
goes on where it stopped. --table prints what is there and runs nothing.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MODERN = "--preset modern --hflip 0 --epochs {twice}"  # left and right are classes of the hard set
COLOR = "--brightness 0.2 --contrast 0.2 --saturation 0.2"
# name -> options of har-train; the recipes that begin with "pretrained" start from har-pretrain
RECIPES = {
    "plain": "",
    "dropout 0.5": "--dropout 0.5",
    "dropout 0.8": "--dropout 0.8",
    "drop-path 0.2": "--drop-path 0.2",
    "diff": "--input diff",
    "rgb+diff": "--input rgb+diff",
    "temporal jitter": "--temporal-jitter",
    "windows": "--frame-stride {strides}",
    "label smoothing": "--label-smoothing 0.1",
    "mixup": "--mixup-alpha 0.2",
    "cutmix": "--cutmix-alpha 1.0",
    "rand-augment": "--rand-augment 9",
    "color": COLOR,
    "ema": "--ema-decay 0.99",
    "cosine": "--lr-scheduler cosine --warmup-epochs 3",
    "adamw": "--optimizer adamw --weight-decay 0.05",
    "zero-init": "--zero-init",
    "pretrained": "",
    "plain, twice the epochs": "--epochs {twice}",
    "modern": MODERN,
    "modern - adamw": f"{MODERN} --optimizer adam --weight-decay 0",
    "modern - cosine": f"{MODERN} --lr-scheduler plateau --warmup-epochs 0",
    "modern - label smoothing": f"{MODERN} --label-smoothing 0",
    "modern - dropout": f"{MODERN} --dropout 0",
    "modern - ema": f"{MODERN} --ema-decay 0",
    "modern - clip-grad": f"{MODERN} --clip-grad 0",
    "modern - windows": f"{MODERN} --frame-stride even",
    "modern - windows, temporal jitter": f"{MODERN} --frame-stride even --no-temporal-jitter",
    "modern + zero-init": f"{MODERN} --zero-init",
    "modern + color": f"{MODERN} {COLOR}",
    "modern + mixup": f"{MODERN} --mixup-alpha 0.2",
    "modern + cutmix": f"{MODERN} --cutmix-alpha 1.0",
    "modern + zero-init, color, mixup": f"{MODERN} --zero-init {COLOR} --mixup-alpha 0.2",
    "modern + dropout 0.5": f"{MODERN} --dropout 0.5",
    "modern + dropout 0.8": f"{MODERN} --dropout 0.8",
    "modern + drop-path 0.2": f"{MODERN} --drop-path 0.2",
    "modern + diff": f"{MODERN} --input diff",
    "modern + rgb+diff": f"{MODERN} --input rgb+diff",
    "modern + rand-augment": f"{MODERN} --rand-augment 9",
    "pretrained, modern": MODERN,
}
_PRETRAIN_SIZES = "--epochs {epochs} --hflip 0 --windows 2"
_SMALL = "--model-options width=16 --lr 1e-3"
MODELS = {  # name -> options as in `make demo`, and epochs
    "resnet3d": (_SMALL, 40),
    "r2plus1d": (_SMALL, 80),  # after 80 epochs `modern` is far from its end
    "convlstm": ("--lr 2e-3", 40),
    "r3d": ("--lr 3e-4 --augment", 12),
}
_TRAIN = (
    "--crop-scale 0.5 --plateau-patience 3 --plateau-factor 0.3 --patience 1000 --log-every 0 "
    "--device cpu --workers 1"
)
SETS = {  # name -> options of har-train, strides of windows
    "hard": ("--split csv --frames 8 --size 42 --batch-size 16", "1-4"),
    "real": ("--split grouped --frames 8 --size 56 --batch-size 8", "1-4"),
}
_OTHER = ("--split grouped", "1-2")


@dataclass(frozen=True)
class Run:
    """One training. folder: SET/MODEL/RECIPE/seed-N."""

    folder: Path
    shards: Path
    set_name: str
    model: str
    recipe: str
    seed: int

    def accuracy(self, views: int) -> float | None:
        """video@1 of the test clips; None until the run is finished and evaluated so."""
        files = list(self.folder.glob(f"eval/*-{views}view*/eval.json"))
        return float(json.loads(files[0].read_text())["video@1"]) if files else None

    @property
    def seconds(self) -> float:
        """That the training took."""
        return float(json.loads((self.folder / "summary.json").read_text())["seconds"])


def make_runs(args: argparse.Namespace) -> list[Run]:
    """All runs, those of the first seed first, so that a short time gives a whole column."""
    return [
        Run(
            args.out / name.replace("/", "_") / model / recipe.replace(" ", "_") / f"seed-{seed}",
            shards, name, model, recipe, seed,
        )
        for seed in args.seeds
        for name, shards in ((name, _shards_of(args, name)) for name in args.sets)
        for model in args.models
        for recipe in args.recipes
        if not (model == "convlstm" and "drop-path" in recipe)  # it has no residual blocks
        if not (model in ("convlstm", "r3d") and "zero-init" in recipe)  # these have no such option
    ]  # fmt: skip


def _shards_of(args: argparse.Namespace, name: str) -> Path:
    return args.out / name / "shards" if name in SETS else Path(name)


def make_set(args: argparse.Namespace, name: str) -> None:
    """Build a set of SETS, unless it is there."""
    shards, videos = _shards_of(args, name), args.out / name / "videos"
    if name not in SETS or (shards / "manifest.json").is_file():
        return
    videos.mkdir(parents=True, exist_ok=True)
    size = "48x64"
    if name == "hard":
        call("synthetic", videos / "all", "--hard", "--groups", "22")
        for path in sorted((videos / "all").rglob("*.avi")):
            folder = videos / subset_of(path.stem) / path.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(folder / path.name)
        shutil.rmtree(videos / "all")
    else:
        size = "64x86"
        for class_name in ("Punch", "YoYo"):
            link = videos / class_name
            if not link.is_symlink():
                link.symlink_to((args.real / class_name).resolve())
    call("build", videos, "--out", shards, "--frames", "32", "--sampling", "uniform",
         "--size", size)  # fmt: skip
    shutil.rmtree(videos)


def subset_of(key: str) -> str:
    """v_SwipeUp_g09_c01 -> the subset: groups 1-8 train, 9-10 val, as the split "grouped" of 12."""
    group = int(key.split("_g")[1][:2])
    return "train" if group <= 8 else "val" if group <= 10 else "test"


def call(command: str, *words: object, log: Path | None = None, threads: int | None = None) -> None:
    """Run a command of har in a process of its own. Raises CalledProcessError."""
    module = {"train": "train", "pretrain": "pretrain", "eval": "results"}.get(command)
    start = "from har.pipeline.cli import shards_main as main; main()"
    if module is None:
        words = (command, *words)
    else:
        start = f"from har.training.cli.{module} import {command}_main as main; main()"
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    with open(log or os.devnull, "a") as file:
        subprocess.run(
            [sys.executable, "-c", start, *map(str, words)],
            stdout=file, stderr=subprocess.STDOUT, check=True, env=environment,
        )  # fmt: skip


def train(run: Run, args: argparse.Namespace) -> None:
    """Train and evaluate, or go on with it."""
    options, epochs = MODELS[run.model]
    of_set, strides = SETS.get(run.set_name, _OTHER)
    shared = ["--model", run.model, "--shards", run.shards, "--seed", run.seed]
    words = [*f"{of_set} {options}".split(), *_TRAIN.split()]
    weights = args.weights.get(run.model)
    log = run.folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    if run.recipe.startswith("pretrained") and weights is None:
        weights = run.folder.parents[1] / "pretraining" / f"seed-{run.seed}"
        epochs_there = _PRETRAIN_SIZES.format(epochs=args.pretrain_epochs).split()
        with _locks.setdefault(weights, threading.Lock()):  # two recipes start from it
            if not (weights / "summary.json").is_file():
                shutil.rmtree(weights, ignore_errors=True)
                weights.parent.mkdir(parents=True, exist_ok=True)
                given = [word for word in words if word != "--augment"]
                patience = given.index("--patience")
                del given[patience : patience + 2]
                call("pretrain", *shared, "--weights", "none", *given, *epochs_there,
                     *args.options.split(), "--out", weights, log=log, threads=1)  # fmt: skip
    started_from = weights if run.recipe.startswith("pretrained") else "none"
    epochs = args.epochs or epochs
    recipe = RECIPES[run.recipe].format(strides=strides, twice=2 * epochs).split()
    if (run.folder / "last.pt").is_file():
        call("train", "--resume", run.folder, log=log, threads=1)
    else:
        shutil.rmtree(run.folder, ignore_errors=True)
        call(
            "train", *shared, *words, "--epochs", epochs, "--weights", started_from,
            *recipe, *args.options.split(), "--out", run.folder, log=log, threads=1,
        )  # fmt: skip
    for views in args.views:
        call("eval", run.folder, "--views", views, "--device", "cpu", log=log, threads=1)


_locks: dict[Path, threading.Lock] = {}


def run_all(runs: Sequence[Run], args: argparse.Namespace) -> None:
    """Run what is not finished, `--jobs` at a time, until it is done or `--minutes` are over."""
    end = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    todo = [run for run in runs if any(run.accuracy(views) is None for views in args.views)]
    print(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished", file=sys.stderr)

    def one(run: Run) -> str:
        if time.monotonic() > end:
            return ""
        try:
            train(run, args)
        except subprocess.CalledProcessError:
            return f"FAILED, see {run.folder.with_suffix('.log')}"
        accuracies = ", ".join(f"{run.accuracy(views):.3f}" for views in args.views)
        return f"{accuracies} after {run.seconds:.0f} s"

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for run, text in zip(todo, pool.map(one, todo), strict=True):
            if text:
                where = run.folder.relative_to(args.out)
                print(f"{time.strftime('%H:%M:%S')} {where}: {text}", file=sys.stderr, flush=True)


def make_table(runs: Sequence[Run], set_name: str, views: int) -> str:
    """Markdown: a row a recipe, a column a model: mean and range over the seeds."""
    runs = [r for r in runs if r.set_name == set_name and r.accuracy(views) is not None]
    models, recipes = (
        list(dict.fromkeys(getattr(run, name) for run in runs)) for name in ("model", "recipe")
    )
    lines = [f"| recipe | {' | '.join(models)} |", "| --- |" + " --- |" * len(models)]
    for recipe in (name for name in RECIPES if name in recipes):
        cells = [
            _cell([r.accuracy(views) for r in runs if (r.model, r.recipe) == (model, recipe)])
            for model in models
        ]
        lines.append(f"| {recipe} | {' | '.join(cells)} |")
    times = [statistics.mean(run.seconds for run in runs if run.model == model) for model in models]
    lines.append(f"| seconds a run | {' | '.join(f'{seconds:.0f}' for seconds in times)} |")
    return "\n".join(lines)


def _cell(accuracies: Sequence[float | None]) -> str:
    values = [value for value in accuracies if value is not None]
    if not values:
        return ""
    text = f"{statistics.mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ({min(values):.3f}-{max(values):.3f})"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--sets", nargs="+", default=["hard"], help="hard, real, or a shard set")
    parser.add_argument("--models", nargs="+", default=["resnet3d"], choices=MODELS)
    parser.add_argument(
        "--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, metavar="NAME"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--views", nargs="+", type=int, default=[4], help="a table for each")
    parser.add_argument(
        "--epochs", type=int, help="[40; r2plus1d: 80; r3d: 12; twice as many with `modern`]"
    )
    parser.add_argument("--pretrain-epochs", type=int, default=60)
    parser.add_argument("--weights", nargs="*", default=[], metavar="MODEL=PATH",
                        help="what 'pretrained' starts from, instead of har-pretrain")  # fmt: skip
    parser.add_argument("--options", default="", help="more options of har-train, for every run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="start no run after so many")
    parser.add_argument("--real", type=Path, default=Path("../shared/real/ucf101"))
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    args = parser.parse_args(words)
    args.weights = dict(pair.split("=", 1) for pair in args.weights)
    return args


def main(words: Sequence[str] | None = None) -> None:
    args = parse(words)
    runs = make_runs(args)
    if not args.table:
        for name in args.sets:
            make_set(args, name)
        run_all(runs, args)
    for name in args.sets:
        for views in args.views:
            print(f"{name}, views {views}:\n\n{make_table(runs, name, views)}\n")


if __name__ == "__main__":
    main()
