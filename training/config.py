"""One frozen dataclass holds every default of a training run; the command line is derived from it.

Each field's `help` is the option's help. The defaults are the preset `paper`; the paper names its
hyper-parameters and gives a value for none (section 4), so values are ours unless a help names it.
The preset `modern` is what later practice adds (`PRESETS`, each with its reason).

Notes:
- `lr`, `augment` and `weights` are None by default, which means "what suits the model": `resolve`
  fills them in once, and the resolved config is what a run and its checkpoints keep.
- Command lines import this module and must answer --help at once, so it imports nothing heavy; a
  test holds that the names of models and splits here are those of `har.models` and `har.shards`.
"""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, get_type_hints

from .values import (
    ConfigError,
    check_names,
    check_type,
    format_options,
    parse_options,
    plain_value,
    upgrade_settings,
)

CHOICES: dict[str, tuple[str, ...]] = {
    "model": ("resnet3d", "r2plus1d", "convlstm", "r3d"),
    "input": ("rgb", "diff", "rgb+diff"),
    "split": ("grouped", "official-1", "official-2", "official-3", "paper", "csv"),
    "preset": ("paper", "modern"),
    "lr_scheduler": ("plateau", "cosine", "step"),
    "cache": ("none", "ram", "gpu"),
    "optimizer": ("adam", "adamw", "sgd"),
    "class_weights": ("balanced", "none"),
    "monitor": ("val_loss", "val_acc"),
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "recompute": ("auto", "on", "off"),
}
FOLD_NAME = re.compile(r"fold-[1-9][0-9]*/[1-9][0-9]*")  # a split, too
# A model of the user: MODULE:CLASS, or an entry point of the group `har.models`.
MODEL_NAMES = (*CHOICES["model"], "MODULE:CLASS")
_CUSTOM_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
SPLIT_NAMES = (*CHOICES["split"], "fold-I/K")
_STRIDES = re.compile(r"([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?")
AUTO = -1  # --batch-size auto, until `har.training.runtime.memory` has found it

_MINIMUM = {
    "frames": 1, "epochs": 1, "patience": 1, "grad_accum_steps": 1, "rank_timeout": 1,
    "workers": 0, "seed": 0, "split_seed": 0, "plateau_patience": 0, "max_minutes": 0,
    "save_every_minutes": 0, "clip_grad": 0, "warmup_epochs": 0, "epsilon_increment": 0,
    "rotation": 0, "weight_decay": 0, "shuffle_block_size": 0, "max_corrupt": 0,
    "mixup_alpha": 0, "cutmix_alpha": 0, "log_every": 0, "step_size": 1,
}  # fmt: skip
_UNLIMITED = ("max_minutes", "save_every_minutes", "log_every", "clip_grad")  # may be inf


def option(default: Any, text: str, **more: Any) -> Any:
    """A field of the settings. text: the option's help."""
    return field(default=default, metadata={"help": text, **more})


_opt = option  # there are many here


@dataclass(frozen=True)
class Config:
    """All settings of a run. Raises ConfigError at construction for any value out of range."""

    preset: str = _opt("paper", "Where the defaults come from; single options override it.")
    model: str = _opt(
        "resnet3d", "One of the four, or an own one (docs/models.md).",
        metavar="|".join(MODEL_NAMES),
    )  # fmt: skip
    model_options: str = _opt("", "Options of the model, e.g. 'width=32,dropout=0.2'.")
    weights: str | None = _opt(
        None, "kinetics400, none, a file or a run folder. [r3d: kinetics400; else none]"
    )
    freeze: str | None = _opt(None, "stem or layer1-4: the last part kept fixed. [none]")
    allow_other_split: bool = _opt(
        False, "Take --weights of a har-pretrain that saw clips which this split tests on."
    )
    recompute: str = _opt(
        "auto", "convlstm: compute gates again in the backward pass; auto: where memory is short.",
        flags={"--recompute": "on", "--no-recompute": "off"},
    )  # fmt: skip
    input: str = _opt("rgb", "What the first layer reads: frames, their differences, or both.")
    shards: str = _opt("data/shards", "The shard set, as 'make shards' makes it.")
    split: str = _opt("grouped", "Which rule splits the set.", metavar="|".join(SPLIT_NAMES))
    split_seed: int = _opt(0, "Seed of the splits 'paper' and fold-I/K.")
    val_from_train: float = _opt(
        0.0, "Share of train held out by group as val, for splits without val."
    )
    frames: int = _opt(16, "Frames per clip, at most what the shards hold.")
    size: int | None = _opt(None, "Height and width the model sees. [the model's own: 112]")
    batch_size: int = _opt(32, "Clips per step, all ranks; auto: the most that fit.", auto=AUTO)
    epochs: int = _opt(50, "At most this many epochs.")
    max_minutes: float = _opt(0.0, "Stop after this many minutes; 0 = no limit.")
    optimizer: str = _opt("adam", "adam is the paper's (section 5).")
    lr: float | None = _opt(None, "Learning rate. [1e-3; fine-tuning from weights: 1e-4]")
    lr_head: float | None = _opt(None, "Learning rate of the classifier alone. [as --lr]")
    momentum: float = _opt(0.9, "Of sgd, in Nesterov's form; 0 = none.")
    weight_decay: float = _opt(0.0, "The paper names it and does not use it (section 7).")
    lr_scheduler: str = _opt("plateau", "plateau is the paper's (section 5).")
    warmup_epochs: float = _opt(0.0, "With cosine: epochs over which lr rises from 0.")
    plateau_factor: float = _opt(0.1, "lr x this where validation loss stops falling (section 5).")
    plateau_patience: int = _opt(3, "Epochs without a lower loss that pass before that.")
    step_size: int = _opt(10, "With step: epochs after which lr falls, again and again.")
    gamma: float = _opt(0.1, "With step: what lr is then multiplied by.")
    class_weights: str = _opt("balanced", "balanced: rare classes weigh more (section 3.4).")
    label_smoothing: float = _opt(0.0, "Share of each label spread over all classes.")
    dropout: float = _opt(0.0, "Before the classifier; the paper names it and does not use it (7).")
    drop_path: float = _opt(0.0, "Stochastic depth of the last residual block; 0 = off.")
    zero_init: bool = _opt(False, "resnet3d, r2plus1d: residual blocks start as the identity.")
    ema_decay: float = _opt(0.0, "Of a moving average of the weights, to be evaluated; 0 = off.")
    clip_grad: float = _opt(0.0, "Largest norm of the gradient; 0 = no clipping.")
    grad_accum_steps: int = _opt(1, "Split each batch into this many, to save memory.")
    patience: int = _opt(10, "Epochs without improvement before training stops (section 4).")
    epsilon_increment: float = _opt(0.1, "Least relative improvement, in percent (section 4).")
    monitor: str = _opt("val_loss", "What patience watches (section 4).")
    augment: bool | None = _opt(None, "Random crop, rotation, flip. [r3d: off (3.2); others: on]")
    crop_scale: float = _opt(0.08, "Smallest share of the frame's area a random crop may have.")
    rotation: float = _opt(15.0, "Random rotation within +- this many degrees (section 3.1).")
    hflip: float = _opt(0.0, "Probability of a left-right flip; section 3 names it, 3.1 does not.")
    per_frame: bool = _opt(False, "Another crop and rotation for each frame, as the paper does.")
    brightness: float = _opt(0.0, "Each clip's brightness changes by a factor within 1 +- this.")
    contrast: float = _opt(0.0, "The same of contrast.")
    saturation: float = _opt(0.0, "The same of saturation.")
    rand_augment: int = _opt(0, "Strength 1-30 of two more random operations a clip; 0 = off.")
    mixup_alpha: float = _opt(0.0, "Blend clips by shares of Beta(alpha, alpha); 0 = off.")
    cutmix_alpha: float = _opt(0.0, "Paste a box of another clip, by Beta(alpha, alpha); 0 = off.")
    temporal_jitter: bool = _opt(False, "Random temporal phase where the shards hold more frames.")
    frame_stride: str | None = _opt(
        None, "Windows of every N-th stored frame, at random in training; A-B: N at random; auto: "
        "1 to what fits, at most 4; even: frames evenly over all. [even]",
        metavar="N|A-B|auto|even",
    )  # fmt: skip
    precision: str = _opt(
        "auto", "auto: what is right and fastest on this device; the run keeps it."
    )
    device: str = _opt("auto", "auto, cpu, cuda, cuda:N, xpu or mps.")
    sync_bn: bool = _opt(False, "Batch norm over all ranks (CUDA), for small shares per rank.")
    compile: bool = _opt(False, "Train with torch.compile.")
    deterministic: bool = _opt(False, "Only bit-reproducible algorithms, where torch has them.")
    eval_train: bool = _opt(False, "Train figures of the best checkpoint: a pass at the end.")
    log_every: float = _opt(30.0, "Without a terminal: seconds between lines; 0 = none.")
    save_every_minutes: float = _opt(10.0, "Save last.pt within an epoch too; 0 = only after each.")
    shuffle_block_size: int = _opt(
        0, "Shuffle in blocks of clips, for sets beyond memory; 0 = off."
    )
    cache: str = _opt("none", "ram, gpu: keep train and val clips there, read and checked once.")
    max_corrupt: int = _opt(0, "Replace and report so many corrupt train clips before it stops.")
    workers: int = _opt(2, "Reading threads; 0 reads in the training thread.")
    rank_timeout: float = _opt(300.0, "Seconds that ranks wait for one another.")
    tensorboard: bool = _opt(False, "TensorBoard's events in the run folder too.")
    seed: int = _opt(0, "Seed of weights, order and augmentation.")
    command: ClassVar[str] = "har-train"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value in allowed or (name == "split" and FOLD_NAME.fullmatch(value)):
                continue
            if name == "model" and is_custom_model(value):
                continue
            names = {"split": SPLIT_NAMES, "model": MODEL_NAMES}.get(name, allowed)
            raise ConfigError(
                f"--{name.replace('_', '-')} {value!r} is unknown: choose one of "
                f"{', '.join(names)}."
            )
        for name, minimum in _MINIMUM.items():
            self._check(name, getattr(self, name) >= minimum, f"{minimum} or more")
        for name in ("label_smoothing", "dropout", "drop_path", "ema_decay"):
            self._check(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        for name in ("brightness", "contrast", "saturation", "hflip"):
            self._check(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        self._check("rand_augment", 0 <= self.rand_augment <= 30, "0 to 30; 9 is usual")
        self._check("val_from_train", 0 <= self.val_from_train <= 0.5, "a share from 0 to 0.5")
        if self.weights == "":
            raise ConfigError(
                "--weights '' names nothing: give kinetics400, none, a file or a run folder, or "
                "leave it out."
            )
        self._check("size", self.size is None or self.size >= 16, "16 or more")
        for name in ("lr", "lr_head"):
            value = getattr(self, name)
            self._check(name, value is None or value > 0, "more than 0")
        self._check("momentum", 0 <= self.momentum < 1, "at least 0 and below 1")
        self._check("gamma", 0 < self.gamma < 1, "between 0 and 1")
        self._check("plateau_factor", 0 < self.plateau_factor < 1, "between 0 and 1")
        self._check("crop_scale", 0 < self.crop_scale <= 1, "above 0, at most 1")
        self._check_batch()
        if self.mixup_alpha and self.cutmix_alpha:
            raise ConfigError(
                f"--mixup-alpha {self.mixup_alpha} and --cutmix-alpha {self.cutmix_alpha} do not "
                "go together: set one of them to 0."
            )
        strides = self.frame_strides
        valid = strides is None or strides[0] <= strides[1]
        self._check("frame_stride", valid, "1 or more, a range such as 1-3, auto, or even")
        self.options  # noqa: B018  (parses, so that a malformed string fails here)
        self._check_unused()

    def _check_unused(self) -> None:
        """Raise ConfigError for options of one optimizer or schedule, given with another."""
        for name, owner, value in (
            ("momentum", "optimizer", "sgd"), ("step_size", "lr_scheduler", "step"),
            ("gamma", "lr_scheduler", "step"),
        ):  # fmt: skip
            unused = getattr(self, owner) != value
            is_given = getattr(self, name) != type(self).__dataclass_fields__[name].default
            needed = f"it with --{owner.replace('_', '-')} {value}, or leave it out"
            self._check(name, not (unused and is_given), needed)

    def _check_batch(self) -> None:
        size, parts = self.batch_size, self.grad_accum_steps
        if size != AUTO:
            self._check("batch_size", size >= 1, "1 or more, or auto")
            self._check("grad_accum_steps", size % parts == 0, f"a divisor of {size}")
        elif parts > 1:
            raise ConfigError(
                f"--grad-accum-steps {parts} and --batch-size auto do not go together: auto is "
                "what fits at once; give a number, or leave one of them out."
            )

    def _check(self, name: str, valid: bool, allowed: str) -> None:
        value = getattr(self, name)
        if value == math.inf and name not in _UNLIMITED:
            valid, allowed = False, "a finite number"
        if not valid:
            raise ConfigError(f"--{name.replace('_', '-')} {value} does not work: give {allowed}.")

    @property
    def options(self) -> dict[str, Any]:
        """`model_options` as a dict: numbers, true/false and lists become what they look like."""
        return parse_options(self.model_options)

    def check_new(self) -> None:
        """Raise ConfigError for what a new run must not have, and a resumed one goes on with:
        nothing of the preset in effect (`make` is what applies it), an option of the model given
        twice, differences of one frame."""
        values = PRESETS[self.preset]
        if values and all(getattr(self, name) == getattr(Config, name) for name in values):
            raise ConfigError(
                f"Config(preset={self.preset!r}) does not apply the preset: call "
                f"har.train(preset={self.preset!r}, ...), or make it with "
                f"har.training.config.make({{'preset': {self.preset!r}, ...}})."
            )
        for name in ("dropout", "drop_path", "input"):
            value, other = getattr(self, name), self.options.get(name)
            agree = other in (None, value) or value in (getattr(Config, name), values.get(name))
            self._check(name, agree, f"it or --model-options {name}={other}, not both")
        has_input = self.frames > 1 or "diff" not in (self.input, self.options.get("input"))
        self._check("frames", has_input, "2 or more with --input diff")

    @property
    def frame_strides(self) -> tuple[int, int] | None:
        """`frame_stride` as its least and most; None for even, and for auto before `setup` has seen
        the shards; (1, 0) where it does not read."""
        if self.frame_stride in (None, "even", "auto"):
            return None
        match = _STRIDES.fullmatch(self.frame_stride)
        return (int(match[1]), int(match[2] or match[1])) if match else (1, 0)

    def resolve(self) -> Self:
        """Fill in what depends on the model (paper, section 3.2: r3d trains unaugmented)."""
        default = "kinetics400" if self.model == "r3d" else "none"
        weights = default if self.weights is None else self.weights
        lr = self.lr or (1e-3 if weights == "none" else 1e-4)
        augment = self.model != "r3d" if self.augment is None else self.augment
        return replace(self, weights=weights, lr=lr, augment=augment)

    def to_toml(self) -> str:
        """The config as flat TOML; fields that are None are left out."""
        import tomli_w  # not above: `make gpu` runs without an installation

        return tomli_w.dumps({n: v for n, v in self.settings().items() if v is not None})

    def settings(self) -> dict[str, Any]:
        """What config.toml holds."""
        return asdict(self)


def is_custom_model(name: str) -> bool:
    """Whether a name may be that of a user's model; nothing is imported."""
    if _CUSTOM_MODEL.fullmatch(name):
        return True
    from importlib import metadata  # takes 20 ms, and commands answer --help at once

    return bool(metadata.entry_points(group="har.models", name=name))


# The reason beside each: why later practice departs from the paper. Zero-init, mixup and color
# jitter are not in it: there each cost accuracy, in short runs on few clips (docs/benchmarks.md).
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "modern": {
        "optimizer": "adamw",  # weight decay apart from the adaptive step (Loshchilov, Hutter)
        "weight_decay": 0.05,  # not on norms and biases, whose scale is not capacity
        "lr_scheduler": "cosine",  # no patience to tune; ends at 0, where averages settle
        "warmup_epochs": 3.0,  # Adam's second moments are noise in the first steps
        "label_smoothing": 0.1,  # keeps logits from running away on clean labels
        "dropout": 0.2,  # a little, before the classifier: 8,500 clips for 33 M parameters
        "ema_decay": 0.99,  # evaluates the average of the last hundred steps: often better
        "clip_grad": 5.0,  # one bad batch does not undo an epoch
        "frame_stride": "auto",  # another window in each epoch, where the shards hold longer clips
        "temporal_jitter": True,  # else a random phase, where they hold a few frames more
        "hflip": 0.5,  # actions look the same in a mirror; switch off where left and right matter
        "eval_train": True,  # the running means of augmented clips say little of what is known
        "crop_scale": 0.25,  # of the area: 0.08 often cuts the action out of the frame
        "class_weights": "none",  # the classes differ by 1.67 at most
        "patience": 1000,  # cosine runs to its end
    },
}


def make(
    settings: Mapping[str, Any], file: Path | None = None, kind: type[Config] = Config
) -> Config:
    """Defaults, then the preset's, then the TOML `file`'s, then `settings` (those not None).

    settings: as Python has them, too: paths, numbers of numpy, a dict for `model_options`.
    """
    merged, given = (
        upgrade_settings(_read_toml(file)) if file else {},
        given_settings(settings, kind),
    )
    if given.get("preset", merged.get("preset")) != merged.get("preset"):
        _check_preset_applies(str(given["preset"]), merged, file)
    merged.update(given)
    preset = str(merged.get("preset", "paper"))  # whatever it is, `from_mapping` looks at it
    return from_mapping({**PRESETS.get(preset, {}), **merged}, kind)


def _check_preset_applies(preset: str, values: Mapping[str, Any], file: Path | None) -> None:
    """Raise ConfigError where `file`, the config of a run of another preset, sets all that presets
    set: the run would have the preset's name and nothing of it."""
    names = {**PRESETS.get(preset, {}), **PRESETS.get(str(values.get("preset")), {})}
    needed = [name for name in names if getattr(Config, name) is not None]
    if needed and all(name in values for name in needed):
        raise ConfigError(
            f"--preset {preset} changes nothing: {file} sets all of its options, and wins over it; "
            "give the options that you mean by name, or leave them out of the file."
        )


def given_settings(settings: Mapping[str, Any], kind: type[Config] = Config) -> dict[str, Any]:
    """Those of `settings` that are not None, as a config keeps them; ConfigError for a name that
    is none of its fields."""
    check_names(settings, (f.name for f in fields(kind)), "setting")
    given = {name: plain_value(value) for name, value in settings.items() if value is not None}
    if isinstance(given.get("model_options"), Mapping):
        given["model_options"] = format_options(given["model_options"])
    for name in ("shards", "weights"):
        if isinstance(given.get(name), str):
            given[name] = os.path.expanduser(given[name])
    return given


def load(file: Path, *kinds: type[Config]) -> Config:
    """The config that a run wrote (config.toml), of earlier versions too: a `Config`, or the first
    of `kinds` that has all its settings. Raises ConfigError."""
    values = upgrade_settings(_read_toml(file))
    known: list[type[Config]] = [Config, *kinds]
    fitting = [kind for kind in known if set(values) <= {field.name for field in fields(kind)}]
    return from_mapping(values, fitting[0] if fitting else Config)


def from_mapping(values: Mapping[str, Any], kind: type[Config] = Config) -> Config:
    """A dict (of a TOML file or a checkpoint) -> Config; an unknown name is a ConfigError."""
    check_names(values, (f.name for f in fields(kind)), "setting")
    values = dict(values)
    if values.get("batch_size") == "auto":
        values["batch_size"] = AUTO
    if not isinstance(values.get("recompute", ""), str):  # None or a bool before it could be auto
        values["recompute"] = {None: "auto", True: "on", False: "off"}[values["recompute"]]
    hints = get_type_hints(kind)
    for name, value in values.items():
        check_type(name, value, hints[name])
    return kind(**values)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode(errors="surrogateescape"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a readable config ({error}).") from error
