"""Rules over numbers and weights: learning rate, loss scale, early stopping, EMA, metric sums."""

from .early_stopping import BestEpoch, EarlyStopping
from .ema import ModelEma
from .loss_scaler import LossScaler
from .lr_scheduler import LrScheduler
from .metric_sums import MetricSums

__all__ = ["BestEpoch", "EarlyStopping", "LossScaler", "LrScheduler", "MetricSums", "ModelEma"]
