"""Rules over numbers and weights: learning rate, early stopping, EMA, running sums of metrics."""

from .early_stopping import BestEpoch, EarlyStopping
from .ema import ModelEma
from .lr_scheduler import LrScheduler
from .metric_sums import MetricSums

__all__ = ["BestEpoch", "EarlyStopping", "LrScheduler", "MetricSums", "ModelEma"]
