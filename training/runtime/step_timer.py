"""Where the time of a training step goes: waiting for data, host to device, compute.

On the CPU the host's clock tells it: what is not waited for the loader is compute, and nothing
crosses to a device. On CUDA the host runs ahead of the device and its clock says nothing: there,
events on the device are kept for some steps (about every tenth) and read when they have happened,
so that no step waits for the device.

Odd: a wait is the gap on the device between the end of one step and the start of the next. A copy
or an augmentation that runs beside the step before costs nothing and is not counted; only the part
of it inside the gap is, the copy's as transfer, the augmentation's as compute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

_EVERY = 10  # steps between two that are timed by events; fewer where an epoch is short
_LIMIT = 0.2  # waited for this share of the time, a side sets the pace; in a short epoch the
# start of the loader alone takes 0.12 (13 steps of ConvLSTM)


@dataclass
class CopyEvents:
    """CUDA events around one batch's way in (timing enabled).

    done: the step before has ended. began, copied, arrived: the copy's start and end and the
    augmentation's end, on their own stream. go: this step may start.
    """

    done: Any
    began: Any
    copied: Any
    arrived: Any
    go: Any

    def happened(self) -> bool:
        """Whether all of them have; does not wait."""
        return bool(self.go.query() and self.arrived.query())

    def gap(self) -> tuple[float, float]:
        """-> seconds of the gap before the step: (waiting for data, host to device)."""
        at = [
            self.done.elapsed_time(event) / 1000
            for event in (self.began, self.copied, self.arrived, self.go)
        ]
        return split_gap(*at)


def split_gap(began: float, copied: float, arrived: float, go: float) -> tuple[float, float]:
    """Times in seconds after the end of the step before -> (waiting for data, host to device).

    The gap lasts from 0 to `go`. Of it, the copy's part is transfer, the augmentation's is compute
    and in neither number, and all the rest is waiting for data.
    """
    copy = _overlap(began, copied, go)
    work = _overlap(copied, arrived, go)
    return max(0.0, go - copy - work), copy


def _overlap(start: float, end: float, go: float) -> float:
    return max(0.0, min(end, go) - max(start, 0.0))


def timed(step: int, steps: int) -> bool:
    """Whether events are kept for this step of `steps`: the first, then about every tenth, and
    more often where an epoch has fewer than 200 steps."""
    every = max(1, min(_EVERY, steps // 20))
    return step == 0 or step % every == every // 2


class StepTimer:
    """Sums, over the steps of an epoch, of the seconds waited for data and for the transfer.

    The first step counts once (its wait is the loader's start); the mean of the others that were
    timed counts for all the others.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[bool, CopyEvents]] = deque()
        self._first = [0.0, 0.0]
        self._others = [0.0, 0.0]
        self._timed = self._steps = 0

    def add(self, waited: float, marks: CopyEvents | None, *, first: bool, device: bool) -> None:
        """One step. waited: by the host's clock, which counts only where there is no `device`."""
        self._steps += not first
        if not device:
            self._count(first, (waited, 0.0))
        elif marks is not None:
            self._pending.append((first, marks))
            while self._pending and self._pending[0][1].happened():
                self._settle_one()

    def settle(self) -> tuple[float, float]:
        """-> seconds (waiting for data, host to device) of all steps added.

        Reads the events that are left, so it belongs where the device is waited for anyway.
        """
        while self._pending:
            self._pending[0][1].go.synchronize()
            self._pending[0][1].arrived.synchronize()
            self._settle_one()
        return self.so_far()

    def so_far(self) -> tuple[float, float]:
        """The same of the events that have been read, without waiting."""
        scale = self._steps / self._timed if self._timed else 0.0
        data, copy = (
            one + others * scale for one, others in zip(self._first, self._others, strict=True)
        )
        return data, copy

    def _settle_one(self) -> None:
        first, marks = self._pending.popleft()
        self._count(first, marks.gap())

    def _count(self, first: bool, gap: tuple[float, float]) -> None:
        sums = self._first if first else self._others
        self._timed += not first
        sums[0] += gap[0]
        sums[1] += gap[1]


def shares(waited: float, transferred: float, seconds: float) -> dict[str, float]:
    """Seconds of an epoch's training -> its shares, which sum to 1: the fields of its line."""
    data, copy = waited / seconds, transferred / seconds
    return {"data_wait": data, "h2d": copy, "compute": max(0.0, 1 - data - copy)}


def limit(line: dict[str, float]) -> str:
    """The sentence on which side sets the pace.

    A device that waits for its input a fifth of the time would be faster with a faster input,
    however much of the rest it computes.
    """
    data, copy, compute = line["data_wait"], line["h2d"], line["compute"]
    if max(data, copy) <= _LIMIT:
        side = "compute limits"
    elif data >= copy:
        side = "data limits: try more --workers or --cache ram"
    else:
        side = "transfer limits: try --cache gpu"
    return f"data {data:.1%} to device {copy:.1%} compute {compute:.1%}, {side}"
