"""Tiny videos of every odd kind, and the plain decode that the pipeline's must equal."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the program ffmpeg")
# kind -> how it is encoded. Frames carry moving noise, so that no two of a clip are alike.
KINDS: dict[str, dict] = {
    "mpeg4_b.avi": {"codec": "mpeg4", "b": 2},
    "mpeg4_one_key.avi": {"codec": "mpeg4", "gop": 300},
    "mpeg4.mkv": {"codec": "mpeg4", "b": 1},
    "mpeg4.mp4": {"codec": "mpeg4", "b": 1},
    "mpeg4_odd_size.avi": {"codec": "mpeg4", "size": (49, 67)},
    "mpeg2.mpg": {"codec": "mpeg2video", "b": 2, "format": "mpeg"},
    "h264.mp4": {"codec": "libx264", "b": 2},
    "h264_open.mkv": {"codec": "libx264", "b": 3, "options": {"x264-params": "open-gop=1"}},
    "h264.avi": {"codec": "libx264", "b": 2},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "grey.mkv": {"codec": "ffv1", "pix_fmt": "gray"},
    "ten_bit.mkv": {"codec": "ffv1", "pix_fmt": "yuv420p10le"},
    "odd_size.mkv": {"codec": "ffv1", "size": (33, 41), "pix_fmt": "yuv444p"},
    "portrait.avi": {"codec": "mpeg4", "size": (64, 36)},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ntsc.avi": {"codec": "mpeg4", "rate": Fraction(30000, 1001)},
    "one_frame.avi": {"codec": "mpeg4", "frames": 1},
    "one_frame.mp4": {"codec": "libx264", "frames": 1},
    "sound.avi": {"codec": "mpeg4", "sound": True},
    "short.avi": {"codec": "mpeg4", "frames": 5},
}


def write(path: Path, kind: str = "mpeg4_b.avi", **changes: object) -> Path:
    """Write the video `kind` (see KINDS) to `path`; `changes` replace its settings."""
    how = {**KINDS[kind], **changes}
    height, width = how.get("size", (48, 64))
    rate = how.get("rate", 25)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(how.get("seed", 0))
    canvas = rng.integers(0, 256, (height // 4 + 40, width // 4 + 40, 3), np.uint8)
    canvas = canvas.repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w", format=how.get("format")) as out:
        video = out.add_stream(how["codec"], rate=rate, options=how.get("options", {}))
        video.height, video.width = height, width
        video.pix_fmt = how.get("pix_fmt", "yuv420p")
        video.codec_context.gop_size = how.get("gop", 6)
        video.codec_context.max_b_frames = how.get("b", 0)
        video.codec_context.thread_count = 1
        sound = out.add_stream("mp3", rate=44100) if how.get("sound") else None
        for number in range(how.get("frames", 40)):
            image = canvas[number : number + height, 3 * number : 3 * number + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if sound:
            silence = np.zeros((1, 44100), np.float32)
            tone = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            tone.rate = 44100
            out.mux(sound.encode(tone))
            out.mux(sound.encode())
    return path


def write_images(
    folder: Path,
    count: int,
    name: str = "{}.png",
    size: tuple[int, int] = (48, 64),
    seed: int = 0,
) -> Path:
    """Images of noise, numbered from 1, no two alike; -> folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        pixels = np.random.default_rng(seed + number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name.format(number))
    return folder


def tree(root: Path, groups: int = 4, clips: int = 2, **changes: object) -> Path:
    """Two classes x groups x clips of 64x48, named as UCF101's, no two alike; -> root."""
    for number, name in enumerate(("Punch", "YoYo")):
        for group in range(1, groups + 1):
            for clip in range(1, clips + 1):
                path = root / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi"
                seed = number * 100 + group * 10 + clip
                write(path, **{"seed": seed, "frames": 12, **changes})
    return root


def ffmpeg(*arguments: str | Path) -> None:
    """Run the program, which decodes and encodes independently of PyAV."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def encode(path: Path, arguments: list[str], frames: int = 70) -> Path:
    """A moving test picture of `frames` frames of 96x80."""
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x80:rate=25", "-pix_fmt", "yuv420p"]
    ffmpeg(*source, "-frames:v", str(frames), *arguments, path)
    return path


def shown(path: Path, size: tuple[int, int] = (80, 96), *stream: str) -> np.ndarray:
    """uint8 [N,H,W,3]: all frames as the program ffmpeg gives them out, damaged files as well."""
    output = ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-i", str(path), *stream, *output]
    pixels = subprocess.run(command, capture_output=True, timeout=60).stdout
    return np.frombuffer(pixels, np.uint8).reshape(-1, *size, 3)


def probe(path: Path, stream: str = "v:0") -> np.ndarray:
    """Seconds of each frame since the first, by ffprobe."""
    entry = "frame=best_effort_timestamp_time"
    command = ["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", entry]
    text = subprocess.run([*command, "-of", "csv=p=0", path], check=True, capture_output=True)
    times: list[float] = []
    for word in text.stdout.decode().replace(",", " ").split():  # N/A: the last one of an AVI
        times.append(float(word) if word != "N/A" else times[-1] + 1 / 25)
    return np.array(times) - times[0]


def variable_rate(path: Path, arguments: list[str]) -> Path:
    """As a phone records: 30 frames at 25, 30 at 8 and 40 at 59 a second; 5.48 s in all."""
    times = "if(lt(N,30),N*40,if(lt(N,60),1200+(N-30)*120,4800+(N-60)*17))"
    filters = ["-vf", f"settb=1/1000,setpts='{times}'", "-fps_mode", "passthrough"]
    return encode(path, [*filters, "-enc_time_base", "1/1000", *arguments], frames=100)


def wrong_rate(path: Path) -> Path:
    """A WebM of 60 frames, 25 a second, whose header says that they are 1000 a second."""
    data = bytearray(encode(path, ["-c:v", "libvpx"], frames=60).read_bytes())
    at = data.index(b"\x23\xe3\x83\x84") + 4  # RFC 9559: DefaultDuration, nanoseconds
    data[at : at + 4] = (1_000_000).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def by_hand(path: Path) -> list[np.ndarray]:
    """Every frame of a plain decode from the first one, uint8 RGB, upright."""
    return [upright(frame) for frame in frames_by_hand(path)]


def upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 RGB [H,W,3]."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def frames_by_hand(path: Path) -> list[av.VideoFrame]:
    """Every frame of a plain decode from the first one."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.thread_count = 1
        # Theora repeats a picture by an empty packet: no frame, and an error to the decoder.
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [
            frame for packet in [*packets, None] for frame in stream.codec_context.decode(packet)
        ]


def resized(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As torchvision resizes, bilinear with antialias."""
    import torch
    from torchvision.transforms.v2 import functional

    image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)
    return functional.resize(image, list(size), antialias=True).permute(1, 2, 0).numpy()
