"""A run's folder: where it is, what is written at its start and end. It never writes over another.

config.toml (resolved), environment.json, metrics.jsonl (one line an epoch), best.pt, last.pt,
log.txt, the curves as PNG, summary.json at the end; with --tensorboard its events.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ...atomic import write_atomically
from ...errors import HarError, printable
from ...progress import write
from ...shards.format import MANIFEST
from ...shards.storage import LocalFolder, local_path, url_of
from .. import config as configs
from ..config import Config, ConfigError
from . import checkpoint
from .device import device_name
from .distributed import DistributedContext
from .precision import NAMES

PACKAGES = ("har-ucf101", "torch", "torchvision", "av", "webdataset", "numpy", "pillow")
_BEFORE_TRAINING = ("config.toml", "environment.json", "log.txt")  # written before it trains
# What may differ in a resumed run: how long, and on what machine, but not what is computed.
RESUMABLE = (
    "epochs", "max_minutes", "patience", "workers", "device", "save_every_minutes", "shards",
    "cache", "rank_timeout", "tensorboard", "recompute", "eval_train", "log_every",
)  # fmt: skip


def choose_folder(out: Path | None, model: str, root: Path = Path("runs")) -> Path:
    """--out, or the first free of runs/MODEL, runs/MODEL-2, ...; a folder in use is refused."""
    if out is None:
        model = model.rpartition(":")[2]
        names = (f"{model}-{n}" if n > 1 else model for n in range(1, 10_000))
        return next(root / name for name in names if not (root / name).exists())
    if refusal := describe_use(out):
        raise ConfigError(refusal)
    return out


def describe_use(folder: Path) -> str:
    """Why a new run cannot be written to `folder`; "" where it can, to one that is empty or new."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return ""
    begun = any((folder / name).is_file() for name in ("last.pt", "folds.json"))
    return (
        f"the run folder {folder} already exists: choose another --out"
        f"{f', or go on with --resume {folder}' * begun}; nothing was written."
    )


@contextmanager
def claimed(folder: Path, ctx: DistributedContext, *, is_new: bool) -> Iterator[None]:
    """Make the folder; while the block runs no other process trains in it, where the file system
    can tell. is_new: of a run that begins.

    Raises ConfigError where another process does, or has begun a run there meanwhile, and RunError.
    """
    with ExitStack() as stack:
        refusal = ""
        if ctx.is_main_process:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                is_ours = stack.enter_context(LocalFolder(folder).locked())
            if not is_ours:
                refusal = (
                    f"another process trains in the run folder {folder}: wait for its end, or "
                    "choose another --out."
                )
            elif is_new and any(path.name != "log.txt" for path in folder.iterdir()):
                refusal = describe_use(folder)
        if refusal := ctx.broadcast(refusal):
            raise ConfigError(refusal)
        yield


def remove_untrained(folder: Path) -> None:
    """Remove what a run wrote that failed before it had trained anything, so that the same command
    works again; a folder that holds more stays, and that of a run that trains its first epoch."""
    if folder.is_dir() and all(path.name in _BEFORE_TRAINING for path in folder.iterdir()):
        with LocalFolder(folder).locked() as is_ours:
            if is_ours:
                shutil.rmtree(folder, ignore_errors=True)


def load_resumed(
    path: Path, settings: dict[str, Any], kind: type[Config] = Config, out: Path | None = None
) -> tuple[Config, Path, dict[str, Any]]:
    """-> (config, run folder, state) to resume: the checkpoint's, changed where `settings` may.

    path: a run folder, or a checkpoint in it that is its newest; another, which is of a best epoch,
    goes on in the new folder `out`. kind: of the config. Raises CheckpointError, ConfigError or
    RunError, one sentence.
    """
    state = checkpoint.load_last(path)
    command = checkpoint.command_of(state)
    if command != kind.command:
        raise ConfigError(f"{path} is a run of {command}: go on with '{command} --resume {path}'.")
    given = check_resumable(settings)
    folder = path if path.is_dir() else path.parent
    if "shards" not in given:
        given["shards"] = find_shards_of(state, folder)
    run_config = configs.from_mapping({**state["config"], **given}, kind)
    if run_config.precision == "auto":  # of a run of before, whose answer was not kept
        run_config = replace(run_config, precision=_precision_of(folder))
    if "epochs" in given and run_config.epochs < (finished := state["progress"]["epoch"] - 1):
        raise ConfigError(
            f"--epochs {run_config.epochs} is less than the {finished} epochs that {path} is "
            f"trained already: give more than {finished}, or leave it out."
        )
    if out is None:
        _check_newest(path, state, folder)
        return run_config, folder, state
    if state["epoch"] != state["best"]["epoch"] or state["progress"]["step"]:
        raise ConfigError(
            f"--out {out} is for a checkpoint of a best epoch, and {path} is none: give "
            f"--resume {folder / 'best.pt'}, or go on in {folder} without --out."
        )
    return run_config, choose_folder(out, run_config.model), state


def _check_newest(path: Path, state: dict[str, Any], folder: Path) -> None:
    """Refuse a checkpoint where `folder` has one of later epochs or steps, which would be lost."""
    for other in (folder / "last.pt", folder / "previous.pt"):
        if path.is_dir() or other == path or not other.is_file():
            continue
        with suppress(checkpoint.CheckpointError):  # damaged: then `path` is the way out
            newer = checkpoint.load(other)["progress"]
            done = state["progress"]
            if (newer["epoch"], newer["step"]) > (done["epoch"], done["step"]):
                raise ConfigError(
                    f"--resume {path} would drop what {folder} has trained since: it ends with "
                    f"epoch {done['epoch'] - 1}{_steps(done)} and {other.name} with epoch "
                    f"{newer['epoch'] - 1}{_steps(newer)}; go on with --resume "
                    f"{folder if other.name == 'last.pt' else other}, or from {path.name} in a new "
                    f"folder with --resume {path} --out FOLDER."
                )


def _steps(progress: dict[str, Any]) -> str:
    return f" and {progress['step']} steps" if progress["step"] else ""


def locate_shards(shards: str, folder: Path) -> dict[str, str]:
    """Where a run's shard set lies, absolute and relative to the run: it is found when both were
    moved together. {} for a URL."""
    if url_of(shards):
        return {}
    path = local_path(shards).resolve()
    paths = {"absolute": str(path)}
    with suppress(ValueError):  # Windows: another drive
        paths["relative"] = Path(os.path.relpath(path, folder.resolve())).as_posix()
    return paths


def find_shards(
    shards: str, folder: Path, paths: Mapping[str, str], digest: str | None = None
) -> str:
    """The shard set of the run in `folder`: at `shards` as its config has it, else at one of
    `paths` (of `locate_shards`); a set of another manifest than `digest` only where there is none
    of that.

    Raises RunError where it is at none of these.
    """
    if url_of(shards):
        return shards
    places = [local_path(shards)]
    places += [Path(paths["absolute"])] if "absolute" in paths else []
    if "relative" in paths:
        places.append(Path(os.path.normpath(folder.resolve() / paths["relative"])))
    found = [place for place in places if place.exists()]
    if not found:
        tried = ", ".join(dict.fromkeys(str(place.absolute()) for place in places))
        raise RunError(
            f"--shards is missing: the shard set of {folder} is not at {tried}; give the "
            "folder of the set."
        )
    same = (place for place in found if _manifest_digest(place) == digest)
    return str(next(same, found[0]))


def find_shards_of(state: dict[str, Any], folder: Path) -> str:
    """`find_shards` of the checkpoint `state` in the run folder `folder`."""
    paths: dict[str, str] = {}
    with suppress(RunError):  # of an earlier version, or alone in a folder
        paths = read_file(folder / "environment.json", "", "shards")["shards"]
    shards = str(state["config"]["shards"])
    return find_shards(shards, folder, paths, state.get("manifest_digest"))


def _manifest_digest(place: Path) -> str | None:
    with suppress(OSError):
        return hashlib.sha256((place / MANIFEST).read_bytes()).hexdigest()
    return None


def check_resumable(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of `settings` that were given (are not None). Raises ConfigError for any that may not
    change in a resumed run."""
    given = {name: value for name, value in settings.items() if value is not None}
    fixed = [name for name in given if name not in RESUMABLE]
    if fixed:
        raise ConfigError(
            f"--{fixed[0].replace('_', '-')} cannot change in a resumed run: leave it out; only "
            f"{', '.join('--' + name.replace('_', '-') for name in RESUMABLE)} may."
        )
    return given


def _precision_of(folder: Path) -> str:
    """What "auto" gave in an old run, as its environment.json says; "auto" where there is none."""
    with suppress(RunError):
        dtype = read_file(folder / "environment.json", "", "precision")["precision"]
        return NAMES[getattr(torch, dtype)]
    return "auto"


class Log:
    """Prints a line on the terminal; once the run folder exists, writes it to log.txt too."""

    def __init__(self, folder: Path | str) -> None:
        self._path = Path(folder) / "log.txt"
        self._unwritten: list[str] = []

    def __call__(self, text: str) -> None:
        write(text)
        self._unwritten.append(text)
        if self._path.parent.is_dir():
            with writing(self._path.parent), open(self._path, "ab") as file:
                file.writelines(printable(line + "\n").encode() for line in self._unwritten)
            self._unwritten.clear()


def no_log(_: str) -> None:
    """The log of every rank but the first."""


def start(
    folder: Path, config: Config, device: torch.device, precision: torch.dtype, *, resumed: bool
) -> None:
    """Write config.toml and environment.json (a resumed run: once more) into the folder.

    Raises RunError where the folder takes no more.
    """
    environment = {
        "versions": dict.fromkeys(PACKAGES, "not installed") | installed_versions(PACKAGES),
        "python": platform.python_version(),
        "device": device_name(device),
        "precision": str(precision).removeprefix("torch."),
        "shards": locate_shards(config.shards, folder),
        "commit": _commit(),
        "command": sys.argv,
        "resumed": resumed,
    }
    with writing(folder):
        toml = config.to_toml().encode(errors="surrogateescape")  # paths may be no UTF-8
        write_atomically(folder / "config.toml", toml)
        write_json(folder / "environment.json", environment)
        (folder / "summary.json").unlink(missing_ok=True)  # a finished run that is trained longer


class RunError(HarError):
    """The run folder cannot be written to; one sentence."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise RunError where the block cannot write to the run folder."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if is_full else "mend that"
        way_out = "or give another --out"
        if (folder / "last.pt").is_file():
            way_out = f"then '--resume {folder}' goes on from its last checkpoint"
        raise RunError(
            f"the run folder {folder} cannot be written to ({error.strerror or error}): {remedy}, "
            f"{way_out}."
        ) from error


def read_file(path: Path, command: str, *names: str) -> Any:
    """A .json or .toml file of a run as a dict that has the entries `names`, a .jsonl file as a
    list of such dicts. command: that writes it anew. Raises RunError."""
    try:
        text = path.read_bytes().decode(errors="surrogateescape")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        is_lines = path.suffix == ".jsonl"
        objects = [json.loads(line) for line in (text.splitlines() if is_lines else [text])]
        for content in objects:
            if not isinstance(content, dict) or not content.keys() >= set(names):
                raise ValueError(f"no JSON object with {', '.join(names) or 'names'}")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({error}): run '{command}', which writes it anew."
        ) from error
    return objects if is_lines else objects[0]


def write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.jsonl anew, not appended: a run that was killed and resumed repeats no line."""
    lines = "".join(json.dumps(line) + "\n" for line in history)
    write_atomically(folder / "metrics.jsonl", lines.encode())


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each of `packages` that is installed."""
    versions = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _commit() -> str | None:
    """The commit of this project's checkout; None where it was installed from elsewhere."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
