"""What a program must know to use an exported file: `build_contract`, plain values for JSON.

It stands in the file's metadata and in FILE.json beside it; docs/commands.md shows it.
"""

from typing import Any

from ..runtime.run_dir import installed_versions
from .predictor import Predictor

INPUT = "clips"
OUTPUTS = ("logits", "probabilities")
BATCH = "batch"  # the name of the dimension that may have any size
_PACKAGES = ("har-ucf101", "torch", "onnx", "onnxscript")
_FITTED = {
    "squeeze": "resized to this size",
    "crop": "cut to the proportions of this size around their center and resized to it",
    "pad": "resized in proportion to fit into this size, black around them",
}
# n: frames that decode; S: stored frames of a clip; i: 0 to S - 1; t: times
_RULES = {
    "paper": "frame min(i * max(1, n // S), n - 1)",
    "uniform": "frame (2*i*(n - 1) + S - 1) // (2*(S - 1)); of fewer than S frames min(i, n - 1)",
    "dense": (
        "frame min(s + i * stride, n - 1), windows of S frames that begin at s: "
        "with L = max(0, n - ((S - 1)*stride + 1)), s = L // 2 of one clip, "
        "s = k * L // (clips - 1) of clip k of several"
    ),
    "dense by time": (
        "the frame that is nearest to second s + i / fps after the first frame's: with "
        "L = max(0, t[n - 1] - t[0] - (S - 1) / fps), s = L / 2 of one clip, "
        "s = k * L / (clips - 1) of clip k of several"
    ),
}


def rule_name(predictor: Predictor) -> str:
    """The rule that chooses stored frames: a key of the texts above."""
    sampler = predictor.sampler
    return "dense by time" if sampler.fps is not None else sampler.rule


def build_contract(predictor: Predictor, preprocessing: bool, digest: str) -> dict[str, Any]:
    """preprocessing: whether it is inside the file. digest: the checkpoint's SHA-256."""
    state, transform = predictor.state, predictor.transform
    frames, crop_size = transform.frames, transform.crop_size
    if preprocessing:
        dtype, layout, shape = "uint8", "BTHWC", [BATCH, frames, *predictor.frame_size, 3]
        values = f"RGB, 0..255, frames {_FITTED[predictor.fit]}, bilinear with antialias"
    else:
        dtype, layout, shape = "float32", "BCTHW", [BATCH, 3, frames, *crop_size]
        values = "RGB / 255, resized and centre-cropped as below, less mean, over std"
    return {
        "made_by": "har-export",
        "versions": installed_versions(_PACKAGES),
        "model": predictor.model_name,
        "classes": predictor.classes,
        "input": {
            "name": INPUT,
            "dtype": dtype,
            "layout": layout,
            "shape": shape,
            "channels": "RGB",
            "values": values,
        },
        "outputs": {
            "logits": "float32 [batch,K]",
            "probabilities": "float32 [batch,K], softmax of logits",
        },
        "frames": _describe_frames(predictor),
        "frame_indices": predictor.frame_subset.tolist(),  # of the S that are stored
        "resize": {
            "height": predictor.frame_size[0],
            "width": predictor.frame_size[1],
            "fit": predictor.fit,
            "text": f"upright RGB frames, {_FITTED[predictor.fit]}; bilinear with antialias (that "
            "of Pillow), rounded to uint8",
        },
        "preprocessing_inside": preprocessing,
        "preprocessing": {
            "resize": list(transform.resize_size),
            "centre_crop": list(transform.crop_size),
            "mean": list(transform.mean),
            "std": list(transform.std),
            "text": "the uint8 frame resized to `resize` (height, width) and the centre cut out, "
            "at half pixels where the difference is odd, in one bilinear sampling; then "
            "(pixel / 255 - mean) / std for each channel",
        },
        "sampling": dict(state["preprocessing"]["sampling"]),
        "checkpoint": {"sha256": digest, "epoch": state["epoch"], "split": dict(state["split"])},
    }


def _describe_frames(predictor: Predictor) -> dict[str, Any]:
    """Which frames of a video make a clip."""
    sampler = predictor.sampler
    used = ("stride", "fps") if sampler.rule == "dense" else ()
    values = {name: value for name in used if (value := getattr(sampler, name)) is not None}
    taken = predictor.frame_subset.tolist()
    stored = sampler.frames
    numbers = ", ".join(map(str, taken))
    subset = f"all {stored}" if len(taken) == stored else f"numbers {numbers} of these S"
    mean = f"; the answer is the mean over {sampler.clips} clips" if sampler.clips > 1 else ""
    return {
        "rule": rule_name(predictor),
        "stored": stored,
        "clips": sampler.clips,
        "stream": sampler.stream,
        **values,
        "text": f"S = {stored} frames are chosen of the n that decode, in order of presentation: "
        f"for i = 0 to S - 1 {_RULES[rule_name(predictor)]}. A short video repeats its last frame. "
        f"The network takes {subset}{mean}.",
    }
