"""Which T of the S stored frames of a clip are read: spread over all of them, or a window.

A window is T frames at a stride of stored frames, as SlowFast's T x tau (arXiv 1812.03982). In
training its start is random (temporal jittering: R(2+1)D, arXiv 1711.11248), and with a range of
strides its stride too (PySlowFast's TRAIN_JITTER_FPS). At test time windows are spread over the
clip (views: the ten clips of Non-local Networks, arXiv 1711.07971).
"""

import numpy as np

Strides = tuple[int, int]  # least and most, both included


def view_frames(
    stored: int, frames: int, stride: int | None, view: int = 0, views: int = 1
) -> np.ndarray:
    """Numbers of the stored frames of one view: int64 [frames].

    stride None: evenly over all stored frames, from an offset of view/views of a step. Else windows
    from the first frame to the last; a single one lies in the middle.
    """
    if stride is None:  # in whole numbers: rounded, two views could share a frame
        return (np.arange(frames) * views + view) * stored // (frames * views)
    last_start = num_starts(stored, frames, stride) - 1
    start = last_start // 2 if views == 1 else view * last_start // (views - 1)
    return start + stride * np.arange(frames)


def random_frames(
    stored: int, frames: int, strides: Strides | None, random: np.random.Generator
) -> np.ndarray:
    """The same, int64 [frames], at random: the offset of even frames, or stride and start of a
    window."""
    if strides is None:
        return ((np.arange(frames) + random.random()) * stored / frames).astype(np.int64)
    stride = int(random.integers(strides[0], strides[1] + 1))
    return random.integers(num_starts(stored, frames, stride)) + stride * np.arange(frames)


def random_windows(stored: int, frames: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` windows of a clip of `stored` frames, in order: int64 [count, frames] frame numbers.

    They do not overlap, and all have one stride, drawn from those at which they fit, so that their
    speed tells nothing. stored: at least count * frames.
    """
    stride = int(random.integers(1, stored // (count * frames) + 1))
    free = stored - count * stride * frames
    starts = np.sort(random.integers(0, free + 1, count)) + np.arange(count) * stride * frames
    return starts[:, None] + np.arange(frames) * stride


def eval_stride(strides: Strides | None) -> int | None:
    """The stride at test time: of a range the middle, rounded down."""
    return None if strides is None else sum(strides) // 2


def auto_strides(stored: int, frames: int) -> Strides | None:
    """1 to the largest stride whose windows fit into the stored frames, at most 4; None (frames
    evenly over all) where no stride above 1 fits."""
    largest = min(4, (stored - 1) // (frames - 1)) if frames > 1 else 1
    return (1, largest) if largest > 1 else None


def max_views(stored: int, frames: int, stride: int | None = None) -> int:
    """Most views of a clip: even ones share no frame, windows differ in their start."""
    return stored // frames if stride is None else num_starts(stored, frames, stride)


def split_views(
    views: int, num_clips: int, stored: int, frames: int, stride: int | None
) -> tuple[int, int] | None:
    """`views` of a video of `num_clips` stored clips -> (clips, views of each); None where they do
    not come out even.

    The first clips; where more views are asked for than clips are stored, several of each.
    """
    if 1 <= views <= num_clips:
        return views, 1
    per_clip, rest = divmod(views, num_clips)
    fits = views > 0 and rest == 0 and per_clip <= max_views(stored, frames, stride)
    return (num_clips, per_clip) if fits else None


def describe_views(num_clips: int, stored: int, frames: int, stride: int | None) -> str:
    """What `split_views` takes: "1 or 2 or 4"."""
    most = num_clips * max_views(stored, frames, stride)
    possible = [*range(1, num_clips + 1), *range(2 * num_clips, most + 1, num_clips)]
    if len(possible) <= 8:
        return " or ".join(map(str, possible))
    return f"1 to {most}" + (f", a multiple of {num_clips}" if num_clips > 1 else "")


def num_starts(stored: int, frames: int, stride: int) -> int:
    """How many windows of that stride the stored frames hold."""
    return stored - (frames - 1) * stride
