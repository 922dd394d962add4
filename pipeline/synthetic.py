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

`HARD` is a set to measure recipes on: twelve motions, and what a class does not say varies
(`Difficulty`). A group draws its own values, so that held-out groups look and move as no train
group does; every class has each group's, so that they tell nothing about the class.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from ..atomic import replacing
from ..errors import HarError

HEIGHT, WIDTH, FPS, KEY_FRAME_EVERY = 240, 320, 25, 12
TURN_FRAMES = 40  # frames for one turn of the circles
SPRITES = 7

# (frame, phase) -> (right, down), moving one pixel a frame; phase in 0..2 pi
Path2D = Callable[[float, float], tuple[float, float]]
PATHS: dict[str, Path2D] = {
    "CircleClockwise": lambda t, phase: _circle(t, phase, +1),
    "CircleCounterclockwise": lambda t, phase: _circle(t, phase, -1),
    "SwipeDown": lambda t, phase: (0.0, t),
    "SwipeLeft": lambda t, phase: (-t, 0.0),
    "SwipeRight": lambda t, phase: (t, 0.0),
    "SwipeUp": lambda t, phase: (0.0, -t),
}
_SLANT = math.sqrt(0.5)
HARD_PATHS: dict[str, Path2D] = {
    **PATHS,
    "ShakeHorizontal": lambda t, phase: (_shake(t, phase), 0.0),
    "ShakeVertical": lambda t, phase: (0.0, _shake(t, phase)),
    "ZigzagDown": lambda t, phase: (_SLANT * _shake(t, phase), _SLANT * t),
    "ZigzagLeft": lambda t, phase: (-_SLANT * t, _SLANT * _shake(t, phase)),
    "ZigzagRight": lambda t, phase: (_SLANT * t, _SLANT * _shake(t, phase)),
    "ZigzagUp": lambda t, phase: (_SLANT * _shake(t, phase), -_SLANT * t),
}
CLASSES, HARD_CLASSES = tuple(PATHS), tuple(sorted(HARD_PATHS))
_Range = tuple[float, float]


@dataclass(frozen=True)
class Difficulty:
    """The motions of a set and what varies in it, as ranges to draw from.

    frames: of a video, both included. Of a video: speed (pixels a frame), tempo (of turns and
    shakes), tilt (degrees by which the path is turned). Of a group: scale (of the sprites), noise
    (standard deviation of the light of blocks of 8x8 pixels, drawn for each frame), drift (pixels a
    frame that the background moves), contrast (share of the sprites' own light and color).
    """

    paths: Mapping[str, Path2D]
    frames: tuple[int, int] = (40, 56)
    speed: _Range = (2.2, 2.9)
    tempo: _Range = (1.0, 1.0)
    tilt: _Range = (0.0, 0.0)
    scale: _Range = (1.0, 1.0)
    noise: _Range = (0.0, 0.0)
    drift: _Range = (0.0, 0.0)
    contrast: _Range = (1.0, 1.0)


EASY = Difficulty(PATHS)
HARD = Difficulty(
    HARD_PATHS,
    frames=(48, 72),
    speed=(1.5, 4.0),
    tempo=(0.75, 1.35),
    tilt=(-15.0, 15.0),
    scale=(0.6, 1.5),
    noise=(0.0, 20.0),
    drift=(0.0, 1.5),
    contrast=(0.4, 1.0),
)


class SyntheticError(HarError):
    """A synthetic set that cannot be written as asked; the text is one sentence."""


def write_videos(
    folder: Path | str,
    *,
    groups: int = 10,
    clips: int = 2,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    difficulty: Difficulty = EASY,
    on_video: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write `len(classes) * groups * clips` videos under `folder`; -> their paths, sorted.

    classes: all of the difficulty's where None. The same arguments give the same bytes (with the
    same FFmpeg). `on_video` is called after each video.
    Raises SyntheticError for an unknown class or a count outside 1..99.
    """
    known = sorted(difficulty.paths)
    classes = known if classes is None else classes
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise SyntheticError(f"no synthetic class {unknown[0]!r}; there are {', '.join(known)}.")
    if not (1 <= groups <= 99 and 1 <= clips <= 99):
        raise SyntheticError(f"groups {groups}, clips {clips}: give 1-99 groups and 1-99 clips.")
    paths = []
    for group in range(1, groups + 1):
        for clip in range(1, clips + 1):
            scene = _Scene(seed, group, clip, difficulty)
            for name in classes:
                path = Path(folder) / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi"
                _write_video(path, scene, name, _rng(seed, group, clip, name), difficulty)
                paths.append(path)
                on_video()
    return sorted(paths)


def offsets(
    name: str, count: int, rng: np.random.Generator, difficulty: Difficulty = EASY
) -> np.ndarray:
    """Offsets of the sprite layer of one video of class `name`: int [count, 2] of (right, down).

    Start uniform on the torus, speed, tempo and tilt in the difficulty's ranges, a random phase;
    only the path depends on the class.
    """
    start = rng.uniform((0, 0), (WIDTH, HEIGHT))
    speed, phase = rng.uniform(*difficulty.speed), rng.uniform(0, 2 * math.pi)
    tempo, tilt = rng.uniform(*difficulty.tempo), math.radians(rng.uniform(*difficulty.tilt))
    path = np.array([difficulty.paths[name](tempo * t, phase) for t in range(count)])
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    return np.rint(start + speed / tempo * path @ turn).astype(int) % (WIDTH, HEIGHT)


def _circle(t: float, phase: float, direction: int) -> tuple[float, float]:
    """One pixel a frame, TURN_FRAMES a turn; direction +1 is clockwise on screen."""
    radius, angle = TURN_FRAMES / (2 * math.pi), phase + direction * 2 * math.pi * t / TURN_FRAMES
    return radius * math.cos(angle), radius * math.sin(angle)


def _shake(t: float, phase: float) -> float:
    """Forth and back along a line, one pixel a frame, turning every TURN_FRAMES / 2 frames."""
    time = (t + TURN_FRAMES * phase / (2 * math.pi)) % TURN_FRAMES
    return min(time, TURN_FRAMES - time)


def _rng(*parts: int | str) -> np.random.Generator:
    """A generator for each name: adding a class or a group changes no other video."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


class _Scene:
    """Background and sprite layer of one (group, clip), as YUV 4:2:0 planes.

    Planes are the encoder's own format: composing is one masked copy a plane, without color
    conversion. The layer is tiled 2x2, so that any offset on the torus is a slice.
    """

    def __init__(self, seed: int, group: int, clip: int, difficulty: Difficulty) -> None:
        rng = _rng(seed, group, "look")
        background = [
            _texture(rng, plane, base, spread)
            for plane, base, spread in ((0, 80, 18), (1, 128, 10), (1, 128, 10))
        ]
        palette = np.stack(
            [rng.uniform(150, 225, 3), rng.uniform(70, 186, 3), rng.uniform(70, 186, 3)]
        )
        rng = _rng(seed, group, "variation")
        ranges = (difficulty.scale, difficulty.contrast, difficulty.drift, difficulty.noise)
        scale, contrast, drift, self.noise = (rng.uniform(*limits) for limits in ranges)
        angle = rng.uniform(0, 2 * math.pi)
        self.drift = drift * math.cos(angle), drift * math.sin(angle)  # pixels a frame
        palette = contrast * palette + (1 - contrast) * np.array([[80], [128], [128]])
        mask, layer = _sprites(_rng(seed, group, clip, "sprites"), palette, scale, contrast)
        self.background = [np.tile(plane, (2, 2)) for plane in background]
        self.mask = [np.tile(m, (2, 2)) for m in (mask, mask[::2, ::2], mask[::2, ::2])]
        self.layer = [np.tile(p if not i else p[::2, ::2], (2, 2)) for i, p in enumerate(layer)]

    def frame(self, right: int, down: int, number: int, rng: np.random.Generator) -> np.ndarray:
        """Frame `number`, the layer moved by (right, down): uint8 [360, 320], yuv420p planes."""
        planes = []
        drift_right, drift_down = (round(number * pixels) for pixels in self.drift)
        for background, mask, layer in zip(self.background, self.mask, self.layer, strict=True):
            height, width = background.shape[0] // 2, background.shape[1] // 2
            still = background[_window(drift_right, drift_down, height, width)]
            window = _window(right, down, height, width)
            planes.append(np.where(mask[window], layer[window], still))
        if self.noise:
            blocks = rng.normal(0, self.noise, (HEIGHT // 8, WIDTH // 8))
            noisy = planes[0] + blocks.repeat(8, 0).repeat(8, 1)
            planes[0] = np.clip(noisy, 16, 235).astype(np.uint8)
        return np.concatenate([plane.reshape(-1, WIDTH) for plane in planes])


def _window(right: int, down: int, height: int, width: int) -> tuple[slice, slice]:
    """Where a plane lies in its 2x2 tiling when it is moved by so many pixels of the picture."""
    scale = HEIGHT // height
    y, x = (-down // scale) % height, (-right // scale) % width
    return np.s_[y : y + height, x : x + width]


def _texture(rng: np.random.Generator, halved: int, base: float, spread: float) -> np.ndarray:
    """A smooth random pattern, uint8 [240, 320] (or half of it), periodic in both directions."""
    height, width = HEIGHT >> halved, WIDTH >> halved
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1) * 2 * np.pi
    total = np.zeros((height, width))
    for _ in range(8):
        fy, fx = rng.integers(-6, 7, 2)
        total += np.sin(fy * y + fx * x + rng.uniform(0, 2 * np.pi))
    return np.clip(base + spread * total / 2, 16, 235).astype(np.uint8)


def _sprites(
    rng: np.random.Generator, palette: np.ndarray, scale: float, contrast: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Ellipses and boxes with a two-tone pattern: mask bool [240, 320], three uint8 planes."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    layer = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(3)]
    for number in range(round(SPRITES / scale)):
        cx, cy, half = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), scale * rng.uniform(16, 30)
        squeeze, exponent = rng.uniform(0.7, 1.4), (2, 8)[rng.integers(2)]
        dx = (x - cx + WIDTH / 2) % WIDTH - WIDTH / 2  # the short way round the torus
        dy = (y - cy + HEIGHT / 2) % HEIGHT - HEIGHT / 2
        inside = np.abs(dx / half) ** exponent + np.abs(dy / half * squeeze) ** exponent < 1
        light = (dx * rng.uniform(-1, 1) + dy * rng.uniform(-1, 1)) > 0
        mask |= inside
        for plane, color in zip(layer, palette[:, number % palette.shape[1]], strict=True):
            plane[inside] = np.uint8(color)
        layer[0][inside & light] -= np.uint8(40 * contrast)
    return mask, layer


def _write_video(
    path: Path, scene: _Scene, name: str, rng: np.random.Generator, difficulty: Difficulty
) -> None:
    """Encode one video; a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = int(rng.integers(difficulty.frames[0], difficulty.frames[1] + 1))
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
        for number, (right, down) in enumerate(offsets(name, count, rng, difficulty)):
            pixels = scene.frame(right, down, number, rng)
            frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
