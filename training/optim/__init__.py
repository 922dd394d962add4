"""Rules over numbers and weights: optimizer, learning rate, loss scale, early stopping, sums."""

from .early_stopping import BestEpoch, EarlyStopping
from .ema import ModelEma
from .loss_scaler import LossScaler
from .lr_scheduler import LrScheduler
from .metric_sums import MetricSums
from .optimizer import make_optimizer

__all__ = [
    "BestEpoch", "EarlyStopping", "LossScaler", "LrScheduler", "MetricSums", "ModelEma",
    "make_optimizer",
]  # fmt: skip
