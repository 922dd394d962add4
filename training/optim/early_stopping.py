"""When to stop, and which epoch is the best: rules over the numbers of the epochs so far.

Paper, sections 4 and 8: training stops when the monitored value has not improved by
`epsilon_increment` percent for `patience` epochs; the best epoch is the one with the highest
validation accuracy (ties: the lower validation loss). Without a val subset there is no patience,
and the last epoch is the best.
"""

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Counts epochs without a relative improvement of more than `percent`."""

    percent: float
    lower_is_better: bool
    reference: float | None = None
    num_bad_epochs: int = 0

    def update(self, value: float) -> None:
        """Take the epoch's value."""
        if self._improves(value):
            self.reference, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.reference is None:
            return True
        gain = self.reference - value if self.lower_is_better else value - self.reference
        return gain > abs(self.reference) * self.percent / 100


@dataclass
class BestEpoch:
    """The best epoch so far, by validation accuracy, then by validation loss; without, the last."""

    epoch: int = 0
    val_acc: float = -1.0
    val_loss: float = math.inf

    def update(self, epoch: int, val_acc: float | None, val_loss: float | None) -> bool:
        """-> True when this epoch is the best so far. None: there is no val subset."""
        if val_acc is None or val_loss is None:
            self.epoch = epoch
            return True
        if (val_acc, -val_loss) > (self.val_acc, -self.val_loss):
            self.epoch, self.val_acc, self.val_loss = epoch, val_acc, val_loss
            return True
        return False
