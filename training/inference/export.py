"""`har-export`: a run's best checkpoint as one file for other programs, `torch.export` or ONNX.

The file takes a batch of any size, gives logits and probabilities, and says in its metadata what
it wants: class names, and the input contract (`contract`). With preprocessing inside, that is uint8
frames as the shards hold them; without, what the network itself takes.

Odd:
- Nothing is written that was not run: the finished file is read again and compared with the
  checkpoint on batches of several sizes, and is thrown away where they differ.
- The number of frames is fixed: ConvLSTM is a loop over them, unrolled in the file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HarError
from .predictor import Predictor

if TYPE_CHECKING:
    import torch

    from .export_wrapper import ExportWrapper

TOLERANCE = 1e-4  # of a probability
OUTPUTS = ("logits", "probabilities")
INPUT = "clips"
_KEY = "har"  # of the contract, in the metadata of an ONNX file
_FILE = "har.json"  # the same in a pt2 file
# The exporter's optimiser takes time by the square of the graph: minutes for an unrolled ConvLSTM
# of 8 frames (900 nodes), seconds for the 3-D networks. Runtimes optimise at loading themselves.
_MOST_NODES = 500
_BATCHES = (1, 2, 5)  # 2 is the one it was traced with


class ExportError(HarError):
    """A file that cannot be exported as asked, or does not say what the checkpoint says."""


@dataclass(frozen=True)
class Exported:
    """What was written. difference: the largest of any probability from the checkpoint's; None
    where nothing could run the file. by: what ran it."""

    path: Path
    bytes: int
    difference: float | None
    by: str
    contract: dict[str, Any]


def run(run: Path, out: Path, *, preprocessing: bool = True) -> Exported:
    """Export `run`/best.pt to `out` (.pt2 or .onnx), check it, and -> what was written.

    preprocessing: take uint8 [B,T,H,W,3] as stored, instead of normalised float [B,3,T,h,w].
    Raises ExportError or CheckpointError; `out` is then as it was.
    """
    from .export_wrapper import ExportWrapper

    kind = _kind(out)
    predictor = Predictor(run, "cpu")
    network = ExportWrapper(predictor, preprocessing).eval()
    said = contract(predictor, preprocessing, _digest(Path(run) / "best.pt"))
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.stem}.unfinished{out.suffix}")
    try:
        program = _trace(network)
        (_save_onnx if kind == "onnx" else _save_pt2)(program, unfinished, said)
        difference, by = _compare(unfinished, network, kind)
        size = unfinished.stat().st_size
        os.replace(unfinished, out)
    finally:
        unfinished.unlink(missing_ok=True)
    return Exported(out, size, difference, by, said)


def describe(exported: Exported) -> str:
    """What was written, as lines for the terminal."""
    given = exported.contract["input"]
    checked = (
        f"checked with {exported.by}: probabilities differ from the checkpoint's by "
        f"{exported.difference:.1e} at most"
        if exported.difference is not None
        else "not run: ONNX Runtime is not installed (pip install 'har-ucf101[export]')"
    )
    return (
        f"{exported.path}: {exported.bytes / 1e6:.1f} MB, {exported.contract['model']}, "
        f"{len(exported.contract['classes'])} classes\n"
        f"  input  {given['name']}: {given['dtype']} {given['layout']}, "
        f"{'x'.join(map(str, given['shape']))}\n"
        f"  output {', '.join(OUTPUTS)}: float32 [B,K]\n  {checked}"
    )


def contract(predictor: Predictor, preprocessing: bool, digest: str) -> dict[str, Any]:
    """What a program must know to use the file; goes into it as JSON."""
    state, wanted = predictor.state, predictor.wanted
    height, width = state["preprocessing"]["clip_shape"][1:3]
    if preprocessing:
        dtype, layout, shape = "uint8", "BTHWC", ["B", wanted.frames, height, width, 3]
        values = "RGB, 0..255, frames resized to this size, bilinear with antialias"
    else:
        dtype, layout, shape = "float32", "BCTHW", ["B", 3, wanted.frames, *wanted.crop_size]
        values = "RGB / 255, resized and centre-cropped as below, less mean, over std"
    return {
        "made_by": "har-export",
        "model": predictor.model_name,
        "classes": predictor.classes,
        "input": {
            "name": INPUT,
            "dtype": dtype,
            "layout": layout,
            "shape": shape,
            "values": values,
        },
        "outputs": {"logits": "float32 [B,K]", "probabilities": "float32 [B,K], softmax of logits"},
        "preprocessing_inside": preprocessing,
        "preprocessing": {
            "resize": list(wanted.resize_size),
            "centre_crop": list(wanted.crop_size),
            "mean": list(wanted.mean),
            "std": list(wanted.std),
        },
        "sampling": dict(state["preprocessing"]["sampling"]),
        "checkpoint": {"sha256": digest, "epoch": state["epoch"], "split": dict(state["split"])},
    }


def read_contract(path: Path) -> dict[str, Any]:
    """The contract of an exported file. Raises ExportError for a file without one."""
    text: str | None = None
    if _kind(path) == "onnx":
        import onnx

        found = {p.key: p.value for p in onnx.load(path).metadata_props}
        text = found.get(_KEY)
    else:
        import torch

        files = {_FILE: ""}
        torch.export.load(path, extra_files=files)
        text = files[_FILE]
    if not text:
        raise ExportError(f"{path} carries no contract: it is not of har-export.")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _kind(out: Path) -> str:
    """ "onnx" or "pt2", by the file's name; what ONNX needs must be installed."""
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("onnx", "pt2"):
        raise ExportError(f"-o {out} ends in neither .onnx nor .pt2: choose one of the two.")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if kind == "onnx" and missing:
        raise ExportError(
            f"{out} needs the package {missing[0]}, which is not installed: "
            "pip install 'har-ucf101[export]', or export to a .pt2 file."
        )
    return kind


def _trace(network: ExportWrapper) -> torch.export.ExportedProgram:
    import torch

    batch = torch.export.Dim("batch", min=1)
    given = network.example(2)
    with torch.no_grad():
        return torch.export.export(network, (given,), dynamic_shapes={INPUT: {0: batch}})


def _save_pt2(program: Any, path: Path, said: dict[str, Any]) -> None:
    import torch

    torch.export.save(program, path, extra_files={_FILE: json.dumps(said)})


def _save_onnx(program: Any, path: Path, said: dict[str, Any]) -> None:
    """One file, weights inside; the class names also stand alone, where simple readers look."""
    import torch

    made = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        optimize=len(program.graph.nodes) <= _MOST_NODES,
        verbose=False,
    )
    assert made is not None
    made.model.metadata_props.update(
        {_KEY: json.dumps(said), "classes": json.dumps(said["classes"])}
    )
    made.save(str(path), external_data=False)


def _compare(path: Path, network: ExportWrapper, kind: str) -> tuple[float | None, str]:
    """Run the finished file -> largest difference of a probability, and what ran it."""
    answer, by = (_by_runtime if kind == "onnx" else _by_torch)(path)
    if answer is None:
        return None, by
    worst = 0.0
    for batch in _BATCHES:
        given = network.example(batch)
        wanted = network.reference(given)  # [B,K]
        worst = max(worst, float(np.abs(answer(given) - wanted).max()))
    if not worst <= TOLERANCE:
        raise ExportError(
            f"the exported file does not say what the checkpoint says (probabilities differ by "
            f"{worst:.2g}, allowed is {TOLERANCE:g}): nothing was written."
        )
    return worst, by


def _by_torch(path: Path) -> tuple[Any, str]:
    import torch

    network = torch.export.load(path).module()

    def answer(given: torch.Tensor) -> NDArray[np.float32]:
        with torch.no_grad():
            result: NDArray[np.float32] = network(given)[1].numpy()
        return result

    return answer, f"torch {torch.__version__.split('+')[0]}"


def _by_runtime(path: Path) -> tuple[Any, str]:
    import onnx

    onnx.checker.check_model(str(path), full_check=True)
    if importlib.util.find_spec("onnxruntime") is None:
        return None, ""
    # Else it sends usage data, and leaves files in ~/.cache/Microsoft and the temporary folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors; it warns of each cast that it cannot fold, in colour
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(given: torch.Tensor) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(["probabilities"], {INPUT: given.numpy()})[0]
        return result

    return answer, f"ONNX Runtime {onnxruntime.__version__}"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
