"""The settings of har-pretrain: those of har-train that it has a use for, and a few of its own.

The constants of TCLR (Dave, Gupta, Rizve, Shah 2022, arXiv 2101.07974) are those of its authors'
code (github.com/DAVEISHAN/TCLR, tclr_pretraining/parameters.py).
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from ..config import AUTO, Config, ConfigError, option, replace

# Of a classifier and of labels; their values here are the defaults, which do nothing.
UNUSED = (
    "preset", "freeze", "allow_other_split", "lr_head", "class_weights", "label_smoothing",
    "dropout", "ema_decay", "patience", "epsilon_increment", "monitor", "mixup_alpha",
    "cutmix_alpha", "temporal_jitter", "frame_stride", "eval_train", "augment",
)  # fmt: skip


@dataclass(frozen=True)
class PretrainConfig(Config):
    """All settings of a pretraining. Raises ConfigError as `Config` does."""

    windows: int = option(2, "Windows of a clip, each augmented twice; 1: no temporal term.")
    temporal_weight: float = option(1.0, "Of the temporal term in the loss; 0 = off.")
    temperature: float = option(0.1, "Of the contrast (TCLR).")
    weights: str | None = option(None, "kinetics400, none, a file or a run folder. [none]")
    lr: float | None = option(None, "Learning rate (TCLR). [1e-3]")
    frames: int = option(8, "Frames per window; the shards hold windows x frames or more.")
    batch_size: int = option(16, "Clips per step, all ranks; auto: the most that fit.", auto=AUTO)
    epochs: int = option(200, "At most this many epochs.")
    lr_scheduler: str = option("cosine", "cosine ends at 0, where embeddings settle.")
    plateau_factor: float = option(0.1, "lr x this where the train loss stops falling.")
    warmup_epochs: float = option(5.0, "With cosine: epochs over which lr rises from 0 (TCLR).")
    class_weights: str = "none"
    augment: bool | None = True  # without it nothing is left to contrast
    hflip: float = option(0.5, "Probability of a left-right flip; 0 where left and right matter.")
    crop_scale: float = option(0.2, "Smallest share of the frame's area a random crop may have.")
    brightness: float = option(0.4, "A window's brightness changes by a factor within 1 +- this.")
    contrast: float = option(0.4, "The same of contrast.")
    saturation: float = option(0.4, "The same of saturation.")
    command: ClassVar[str] = "har-pretrain"

    def __post_init__(self) -> None:
        super().__post_init__()
        defaults = {field.name: field.default for field in fields(self)}
        for name in UNUSED:
            if getattr(self, name) != defaults[name]:
                raise ConfigError(f"har-pretrain has no setting {name}: leave it out.")
        self._check("windows", self.windows >= 1, "1 or more")
        self._check("temporal_weight", self.temporal_weight >= 0, "0 or more")
        self._check("temperature", self.temperature > 0, "more than 0")

    @property
    def is_temporal(self) -> bool:
        """Whether the loss has the temporal term."""
        return self.windows > 1 and self.temporal_weight > 0

    def resolve(self) -> Self:
        """Fill in what is None: random weights, the learning rate of TCLR."""
        weights = "none" if self.weights is None else self.weights
        return replace(self, weights=weights, lr=self.lr or 1e-3)

    def settings(self) -> dict[str, Any]:
        """Without those that have no use here."""
        return {name: v for name, v in super().settings().items() if name not in UNUSED}
