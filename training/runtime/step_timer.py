"""Where the time of a training step goes: waiting for data, host to device, compute.

On the CPU the host's clock tells it: what is not waited for the loader is compute, and nothing
crosses to a device. On CUDA the host runs ahead of the device and its clock says nothing: there,
events on the device are kept for each step and read when they have happened, so that no step waits
for the device.

A wait is the gap on the device between the end of one step and the start of the next. A copy or an
augmentation that runs beside the step before costs nothing and is not counted; only the part of it
inside the gap is, the copy's as transfer, the augmentation's as compute.
"""

from collections import deque
from dataclasses import dataclass

import torch

_LIMIT = 0.2  # a share above which data or transfer is named the bottleneck; in a short epoch the
# start of the loader alone takes 0.12 (13 steps of ConvLSTM)


@dataclass
class CopyEvents:
    """CUDA events around one batch's way to the device (timing enabled).

    step_end: the step before has ended. copy_start, copy_end, ready: the copy's start and end and
    the augmentation's end, on their own stream. step_start: this step may start.
    """

    step_end: torch.cuda.Event
    copy_start: torch.cuda.Event
    copy_end: torch.cuda.Event
    ready: torch.cuda.Event
    step_start: torch.cuda.Event

    def query(self) -> bool:
        """Whether all of them have happened; does not wait."""
        return self.step_start.query() and self.ready.query()

    def gap(self) -> tuple[float, float]:
        """-> seconds of the gap before the step: (waiting for data, host to device). Waits."""
        self.step_start.synchronize()
        self.ready.synchronize()
        events = (self.copy_start, self.copy_end, self.ready, self.step_start)
        return split_gap(*(self.step_end.elapsed_time(event) / 1000 for event in events))


def split_gap(
    copy_start: float, copy_end: float, ready: float, step_start: float
) -> tuple[float, float]:
    """Times in seconds after the end of the step before -> (waiting for data, host to device).

    The gap lasts from 0 to `step_start`. Of it, the copy's part is transfer, the augmentation's is
    compute and in neither number, and all the rest is waiting for data.
    """
    copy, augmentation = (
        max(0.0, min(end, step_start) - max(start, 0.0))
        for start, end in ((copy_start, copy_end), (copy_end, ready))
    )
    return max(0.0, step_start - copy - augmentation), copy


class StepTimer:
    """Sums, over the steps of an epoch, of the seconds waited for data and for the transfer."""

    def __init__(self) -> None:
        self._pending: deque[CopyEvents] = deque()
        self._data_time = self._transfer_time = 0.0

    def add(self, data_time: float, copy_events: CopyEvents | None) -> None:
        """One step: what the host's clock says, and the events that tell it on a device."""
        self._data_time += data_time
        if copy_events is not None:
            self._pending.append(copy_events)
        self._read(wait=False)

    def flush(self) -> tuple[float, float]:
        """-> seconds (waiting for data, host to device) of all steps added.

        Reads the events that are left, so it belongs where the device is waited for anyway.
        """
        self._read(wait=True)
        return self.totals()

    def totals(self) -> tuple[float, float]:
        """The same of the events that have been read, without waiting."""
        return self._data_time, self._transfer_time

    def _read(self, wait: bool) -> None:
        while self._pending and (wait or self._pending[0].query()):
            data, copy = self._pending.popleft().gap()
            self._data_time += data
            self._transfer_time += copy


def time_shares(data_time: float, transfer_time: float, seconds: float) -> dict[str, float]:
    """Seconds of an epoch's training -> its shares, which sum to 1: the fields of its line."""
    data, copy = data_time / seconds, transfer_time / seconds
    return {"data_wait": data, "h2d": copy, "compute": max(0.0, 1 - data - copy)}


def bottleneck(line: dict[str, float]) -> str:
    """The sentence on what limits the speed.

    A device that waits for its input a fifth of the time would be faster with a faster input,
    however much of the rest it computes.
    """
    data, copy, compute = line["data_wait"], line["h2d"], line["compute"]
    if max(data, copy) <= _LIMIT:
        limit = "compute limits"
    elif data >= copy:
        limit = "data limits: try more --workers or --cache ram"
    else:
        limit = "transfer limits: try --cache gpu"
    return f"data {data:.1%} to device {copy:.1%} compute {compute:.1%}, {limit}"
