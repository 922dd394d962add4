"""Write a small UCF101-shaped set of real `.avi` files whose classes differ only in their motion.

Files are what UCF101 ships: `<Class>/v_<Class>_g07_c02.avi`, MPEG-4 part 2, 320x240, 25 fps, a key
frame every 12 frames. A video is a still, textured background and a layer of sprites that moves as
one over a torus (what leaves on the right comes in on the left).

By construction, no single frame tells anything about the class:
- The scene (background, palette, sprites) is drawn from (seed, group, clip) and not from the class:
  the very same scenes occur in every class.
- A class is only a trajectory: the layer's offset at frame t is `start + path_class(t)`, with
  `start` uniform on the torus. A uniform offset plus anything is uniform again, so the layer's
  offset in frame t has one distribution for all classes and every t. What is left is the order of
  frames, which is motion.
- Groups differ in background and palette, so held-out groups ask for generalisation; the clips of a
  group share both, as clips cut from one long video do, so a leaky split leaks here too.

Speed: 2.2-2.9 px a frame, so between the frames that `paper` sampling picks (8 of 40-56: every
5th to 7th) the layer moves 11-20 px, 2.2-4.1 px at 48x64. That is well under half of the torus
(160 x 120 px), so the direction is never ambiguous; the circles turn by 45-63 degrees a pick.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

from ..atomic import replacing
from ..errors import HarError

HEIGHT, WIDTH, FPS, KEY_FRAME_EVERY = 240, 320, 25, 12
TURN_FRAMES = 40  # frames for one turn of the circles
SPRITES = 7

# class -> unit path: (frame, phase) -> (right, down), moving one pixel a frame
PATHS: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "CircleClockwise": lambda t, phase: _circle(t, phase, +1),
    "CircleCounterclockwise": lambda t, phase: _circle(t, phase, -1),
    "SwipeDown": lambda t, phase: (0.0, t),
    "SwipeLeft": lambda t, phase: (-t, 0.0),
    "SwipeRight": lambda t, phase: (t, 0.0),
    "SwipeUp": lambda t, phase: (0.0, -t),
}
CLASSES = tuple(PATHS)


class SyntheticError(HarError):
    """A synthetic set that cannot be written as asked; the text is one sentence."""


def write_videos(
    folder: Path | str,
    *,
    groups: int = 10,
    clips: int = 2,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
    frames: tuple[int, int] = (40, 56),
    on_video: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write `len(classes) * groups * clips` videos under `folder`; -> their paths, sorted.

    frames: least and most frames of a video, both included. The same arguments give the same bytes
    (with the same FFmpeg). `on_video` is called after each video.
    Raises SyntheticError for an unknown class or a count outside 1..99.
    """
    unknown = [name for name in classes if name not in PATHS]
    if unknown:
        raise SyntheticError(f"no synthetic class {unknown[0]!r}; there are {', '.join(CLASSES)}.")
    if not (1 <= groups <= 99 and 1 <= clips <= 99 and 1 <= frames[0] <= frames[1]):
        raise SyntheticError(
            f"groups {groups}, clips {clips}, frames {frames}: give 1-99 groups, 1-99 clips and "
            "frames as (least, most), at least 1."
        )
    paths = []
    for group in range(1, groups + 1):
        for clip in range(1, clips + 1):
            scene = _Scene(seed, group, clip)
            for name in classes:
                path = Path(folder) / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi"
                _write_video(path, scene, name, _rng(seed, group, clip, name), frames)
                paths.append(path)
                on_video()
    return sorted(paths)


def offsets(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Offsets of the sprite layer of one video of class `name`: int [count, 2] of (right, down).

    Start uniform on the torus, speed 2.2-2.9 px a frame, a random phase for the circles; only the
    path depends on the class.
    """
    start = rng.uniform((0, 0), (WIDTH, HEIGHT))
    speed, phase = rng.uniform(2.2, 2.9), rng.uniform(0, 2 * math.pi)
    path = np.array([PATHS[name](t, phase) for t in range(count)])
    return np.rint(start + speed * path).astype(int) % (WIDTH, HEIGHT)


def _circle(t: float, phase: float, direction: int) -> tuple[float, float]:
    """One pixel a frame, TURN_FRAMES a turn; direction +1 is clockwise on screen."""
    radius, angle = TURN_FRAMES / (2 * math.pi), phase + direction * 2 * math.pi * t / TURN_FRAMES
    return radius * math.cos(angle), radius * math.sin(angle)


def _rng(*parts: int | str) -> np.random.Generator:
    """A generator for each name: adding a class or a group changes no other video."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


class _Scene:
    """Background and sprite layer of one (group, clip), as YUV 4:2:0 planes.

    Planes are the encoder's own format: composing is one masked copy a plane, without color
    conversion. The layer is tiled 2x2, so that any offset on the torus is a slice.
    """

    def __init__(self, seed: int, group: int, clip: int) -> None:
        rng = _rng(seed, group, "look")
        self.background = [
            _texture(rng, plane, base, spread)
            for plane, base, spread in ((0, 80, 18), (1, 128, 10), (1, 128, 10))
        ]
        palette = np.stack(
            [rng.uniform(150, 225, 3), rng.uniform(70, 186, 3), rng.uniform(70, 186, 3)]
        )
        mask, layer = _sprites(_rng(seed, group, clip, "sprites"), palette)
        self.mask = [np.tile(m, (2, 2)) for m in (mask, mask[::2, ::2], mask[::2, ::2])]
        self.layer = [np.tile(p if not i else p[::2, ::2], (2, 2)) for i, p in enumerate(layer)]

    def frame(self, right: int, down: int) -> np.ndarray:
        """The scene with its layer moved by (right, down): uint8 [360, 320], yuv420p planes."""
        planes = []
        for background, mask, layer in zip(self.background, self.mask, self.layer, strict=True):
            height, width = background.shape
            scale = HEIGHT // height
            y, x = (-down // scale) % height, (-right // scale) % width
            window = np.s_[y : y + height, x : x + width]
            planes.append(np.where(mask[window], layer[window], background))
        return np.concatenate([plane.reshape(-1, WIDTH) for plane in planes])


def _texture(rng: np.random.Generator, halved: int, base: float, spread: float) -> np.ndarray:
    """A smooth random pattern, uint8 [240, 320] (or half of it), periodic in both directions."""
    height, width = HEIGHT >> halved, WIDTH >> halved
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1) * 2 * np.pi
    total = np.zeros((height, width))
    for _ in range(8):
        fy, fx = rng.integers(-6, 7, 2)
        total += np.sin(fy * y + fx * x + rng.uniform(0, 2 * np.pi))
    return np.clip(base + spread * total / 2, 16, 235).astype(np.uint8)


def _sprites(rng: np.random.Generator, palette: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Ellipses and boxes with a two-tone pattern: mask bool [240, 320], three uint8 planes."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    layer = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(3)]
    for number in range(SPRITES):
        cx, cy, half = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(16, 30)
        squeeze, exponent = rng.uniform(0.7, 1.4), (2, 8)[rng.integers(2)]
        dx = (x - cx + WIDTH / 2) % WIDTH - WIDTH / 2  # the short way round the torus
        dy = (y - cy + HEIGHT / 2) % HEIGHT - HEIGHT / 2
        inside = np.abs(dx / half) ** exponent + np.abs(dy / half * squeeze) ** exponent < 1
        light = (dx * rng.uniform(-1, 1) + dy * rng.uniform(-1, 1)) > 0
        mask |= inside
        for plane, color in zip(layer, palette[:, number % palette.shape[1]], strict=True):
            plane[inside] = np.uint8(color)
        layer[0][inside & light] -= 40
    return mask, layer


def _write_video(
    path: Path, scene: _Scene, name: str, rng: np.random.Generator, frames: tuple[int, int]
) -> None:
    """Encode one video; a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = int(rng.integers(frames[0], frames[1] + 1))
    # bitexact: no version string or date in the file, so the same frames give the same bytes.
    # global_quality 354 = 3 * FF_QP2LAMBDA: quantiser 3 throughout, all frames compressed alike.
    bitexact = {"fflags": "+bitexact"}
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="avi", options=bitexact) as container,
    ):
        stream = container.add_stream(
            "mpeg4", rate=FPS, options={"flags": "+bitexact+qscale", "global_quality": "354"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = KEY_FRAME_EVERY
        stream.codec_context.codec_tag = "XVID"
        stream.codec_context.thread_count = 1
        for right, down in offsets(name, count, rng):
            frame = av.VideoFrame.from_ndarray(scene.frame(right, down), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
