"""The script of `har-export --example`: an ONNX file predicts a video without har and torch.

Made of the lines that the run needs: how its shards choose frames, and what becomes of frames of
another shape. Its answers differ from har-predict's by a level of 0..255 where Pillow and torch
round a resized pixel otherwise.
"""

from pathlib import Path

from .export_contract import rule_name
from .predictor import Predictor

_SCRIPT = '''\
"""Predicts VIDEO with {name}, as har-predict does: python {script} VIDEO

Needs onnxruntime, av, numpy and pillow. Written by har-export; {name}.json says more.
"""

import json
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime
{imports}
session = onnxruntime.InferenceSession(Path(__file__).with_name("{name}"))
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])


def frames():  # in order of presentation
    with av.open(sys.argv[1], metadata_errors="replace") as video:
        yield from video.decode({stream})


{count}
S, taken = {stored}, np.array({taken})  # of the S frames that the shards store
{rule}  # numbers of frames, a row a clip
pictures = {{}}
for number, frame in enumerate(frames()):
    if number in clips:
        picture = frame.to_image().rotate(frame.rotation, expand=True)  # upright, RGB
{fit}
batch = np.stack([[pictures[i] for i in clip] for clip in clips.tolist()])
(probabilities,) = session.run(["probabilities"], {{"clips": batch}})  # uint8 {shape}
for p, name in sorted(zip(probabilities.mean(0), classes), reverse=True)[:5]:
    print(f"{{p:.4f}}  {{name}}")
'''
_RULES = {
    "paper": "clips = np.minimum(taken * max(1, n // S), n - 1)[None]",
    "uniform": (
        "even = (2 * taken * (n - 1) + S - 1) // (2 * (S - 1))\n"
        "clips = (np.minimum(taken, n - 1) if n < S else even)[None]"
    ),
    "uniform, one frame": "clips = np.array([[n // 2]])",
    "dense": (
        "last = max(0, n - ((S - 1) * {stride} + 1))\n"
        "starts = np.array({starts})\n"
        "clips = np.minimum(starts[:, None] + taken * {stride}, n - 1)"
    ),
    "dense by time": (
        "last = max(0, times[-1] - times[0] - (S - 1) / {fps})\n"
        "starts = times[0] + last * np.array({shares})\n"
        "moments = starts[:, None] + taken / {fps} - 1e-6\n"
        "clips = np.searchsorted((times[1:] + times[:-1]) / 2, moments)"
    ),
}
_FITS = {
    "squeeze": ["pictures[number] = np.asarray(picture.resize(({W}, {H}), 2))  # 2: bilinear"],
    "crop": [
        "w, h = picture.size",
        "share = min(w / {W}, h / {H})",
        "cw, ch = max(1, round({W} * share)), max(1, round({H} * share))",
        "x, y = (w - cw) // 2, (h - ch) // 2",
        "picture = picture.crop((x, y, x + cw, y + ch))",
        "pictures[number] = np.asarray(picture.resize(({W}, {H}), 2))  # 2: bilinear",
    ],
    "pad": [
        "share = max(picture.width / {W}, picture.height / {H})",
        "w, h = max(1, round(picture.width / share)), max(1, round(picture.height / share))",
        'canvas = Image.new("RGB", ({W}, {H}))',
        "canvas.paste(picture.resize((w, h), 2), (({W} - w) // 2, ({H} - h) // 2))  # 2: bilinear",
        "pictures[number] = np.asarray(canvas)",
    ],
}


def example_path(out: Path) -> Path:
    """Beside the exported file: m.onnx -> m_example.py."""
    return out.with_name(f"{out.stem}_example.py")


def write_script(predictor: Predictor, out: Path) -> str:
    """The script for a file `out` that takes frames as stored, as text."""
    sampler, (H, W) = predictor.sampler, predictor.frame_size
    name = rule_name(predictor)
    if name == "uniform" and sampler.frames == 1:
        name = "uniform, one frame"
    clips = sampler.clips
    shares = [0.5] if clips == 1 else [k / (clips - 1) for k in range(clips)]
    starts = "[last // 2]"
    if clips > 1:
        starts = f"[k * last // {clips - 1} for k in range({clips})]"
    rule = _RULES[name].format(stride=sampler.stride, fps=sampler.fps, shares=shares, starts=starts)
    count = "n = sum(1 for _ in frames())"
    if name == "dense by time":
        count = "times = np.array([frame.time for frame in frames()])"
    stream = 'video.streams.best("video")'
    if sampler.stream is not None:
        stream = f"video.streams[{sampler.stream}]"
    fit = "\n".join(" " * 8 + line.format(H=H, W=W) for line in _FITS[predictor.fit])
    taken = predictor.frame_subset.tolist()
    return _SCRIPT.format(
        name=out.name, script=example_path(out).name, stream=stream, rule=rule, fit=fit,
        stored=sampler.frames, taken=taken, count=count,
        imports="from PIL import Image\n" if predictor.fit == "pad" else "",
        shape=f"[clips,{len(taken)},{H},{W},3]",
    )  # fmt: skip
