"""`har-export`: a run's best checkpoint as one file for other programs, `torch.export` or ONNX.

The file takes a batch of any size and gives logits and probabilities; its metadata, and FILE.json
beside it, hold the class names and the input contract (`export_contract`). With preprocessing
inside, the input is uint8 frames as the shards hold them; without, what the network itself takes.

Notes:
- The finished file is read again, run, and compared with the checkpoint on batches of several
  sizes; it is removed where they differ.
- The number of frames is fixed: ConvLSTM is a loop over them, unrolled in the file.
- ONNX Runtime warns of no operator in it: a test holds that.
"""

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ... import models
from ...atomic import replacing, write_atomically
from ...errors import HarError
from .export_contract import BATCH, INPUT, OUTPUTS, build_contract
from .export_example import example_path, write_script
from .export_wrapper import ExportWrapper
from .predictor import Predictor

Answers = list[NDArray[np.float32]]  # probabilities [B,K] of each batch
TOLERANCE = 1e-4  # of a probability
_ONNX_KEY = "har"  # of the contract, in the metadata of an ONNX file
_PT2_FILE = "har.json"  # the same in a pt2 file
_CHECKED_BATCHES = (1, 2, 5)  # 2 is the one it was traced with


class ExportError(HarError):
    """A file that cannot be exported as asked, or that answers differently from the checkpoint."""


@dataclass(frozen=True)
class ExportResult:
    """What was written. max_difference: of any probability from the checkpoint's; None where no
    installed package could run the file. runtime: what ran it. checkpoint: which, in words.
    example: the script, if any."""

    path: Path
    num_bytes: int
    max_difference: float | None
    runtime: str
    contract: dict[str, Any]
    checkpoint: str
    example: Path | None = None


def export_run(
    run: Path, out: Path, *, preprocessing: bool = True, example: bool = False
) -> ExportResult:
    """Export a checkpoint to `out` (.pt2 or .onnx) and compare the file with it.

    run: a run folder, whose best.pt is taken, or a checkpoint in one.
    preprocessing: take uint8 [B,T,H,W,3] as stored, instead of normalised float [B,3,T,h,w].
    example: write a script that predicts a video with an .onnx file, beside it. Raises ExportError
    or CheckpointError; `out` is then as it was.
    """
    file_format = _file_format(out)
    if example and (file_format != "onnx" or not preprocessing):
        raise ExportError(
            "--example is a script for ONNX Runtime that reads stored frames: give -o a name that "
            "ends in .onnx, and leave out --no-preprocessing."
        )
    predictor = Predictor(run, "cpu")
    network = ExportWrapper(predictor, preprocessing).eval()
    digest = hashlib.sha256(predictor.path.read_bytes()).hexdigest()
    contract = build_contract(predictor, preprocessing, digest)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        program = _trace(network, predictor.model_name)
        (_save_onnx if file_format == "onnx" else _save_pt2)(program, temporary, contract)
        max_difference, runtime = _compare(temporary, network, file_format)
    text = json.dumps(contract, indent=1, ensure_ascii=False) + "\n"
    write_atomically(out.with_name(f"{out.name}.json"), text.encode())
    script = example_path(out) if example else None
    if script is not None:
        write_atomically(script, write_script(predictor, out).encode())
    return ExportResult(
        out, out.stat().st_size, max_difference, runtime, contract, predictor.describe(), script
    )


def describe_export(result: ExportResult) -> str:
    """What was written, as lines for the terminal."""
    clips, resize = result.contract["input"], result.contract["resize"]
    checked = (
        f"checked with {result.runtime}: probabilities differ from the checkpoint's by "
        f"{result.max_difference:.1e} at most"
        if result.max_difference is not None
        else "not run: ONNX Runtime is not installed (pip install 'har-ucf101[export]')"
    )
    example = f"\n  example python {result.example} VIDEO" if result.example else ""
    return (
        f"{result.path}: {result.num_bytes / 1e6:.1f} MB, of {result.checkpoint}\n"
        f"  input  {clips['name']}: {clips['dtype']} {clips['layout']}, "
        f"{'x'.join(map(str, clips['shape']))}\n"
        f"  values {clips['values']}\n"
        f"  frames {result.contract['frames']['text']}\n"
        f"  resize {resize['height']}x{resize['width']}: {resize['text']}\n"
        f"  output {', '.join(OUTPUTS)}: float32 [{BATCH},K]\n"
        f"  all of this, classes and versions: {result.path}.json{example}\n  {checked}"
    )


def _file_format(path: Path) -> str:
    """ "onnx" or "pt2", by the file's suffix; what ONNX needs must be installed."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in ("onnx", "pt2"):
        raise ExportError(f"-o {path} ends in neither .onnx nor .pt2: choose one of the two.")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if suffix == "onnx" and missing:
        raise ExportError(
            f"{path} needs the package {missing[0]}, which is not installed: "
            "pip install 'har-ucf101[export]', or export to a .pt2 file."
        )
    return suffix


def _trace(network: ExportWrapper, model_name: str) -> torch.export.ExportedProgram:
    shapes = {INPUT: {0: torch.export.Dim(BATCH, min=1)}}
    try:
        with torch.no_grad():
            return torch.export.export(network, (network.example_clips(2),), dynamic_shapes=shapes)
    except Exception as error:
        if not models.is_custom(model_name):
            raise
        reason = (str(error).strip() or "no text").splitlines()[0][:160]
        raise ExportError(
            f"torch.export cannot follow {model_name} ({type(error).__name__}: {reason}): its "
            "forward must not decide by values of tensors, nor fix the batch size (docs/models.md)."
        ) from error


def _save_pt2(program: torch.export.ExportedProgram, path: Path, contract: dict[str, Any]) -> None:
    with open(path, "wb") as file:  # by name, torch warns of a suffix other than .pt2
        torch.export.save(program, file, extra_files={_PT2_FILE: json.dumps(contract)})


def _save_onnx(program: torch.export.ExportedProgram, path: Path, contract: dict[str, Any]) -> None:
    """One file, weights inside; the class names also stand alone, for readers of only those."""
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        optimize=True,
        verbose=False,
    )
    assert onnx_program is not None
    _name_batch(onnx_program.model.graph)
    contract["versions"]["opset"] = onnx_program.model.opset_imports[""]
    onnx_program.model.metadata_props.update(
        {_ONNX_KEY: json.dumps(contract), "classes": json.dumps(contract["classes"])}
    )
    onnx_program.save(str(path), external_data=False)


def _name_batch(graph: Any) -> None:
    """Call the free dimension "batch" in every shape, where torch calls it s7 or the like."""
    symbol = re.compile(rf"\b{graph.inputs[0].shape[0]}\b")
    for value in [*graph.inputs, *graph.outputs, *(v for node in graph for v in node.outputs)]:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                value.shape[axis] = symbol.sub(BATCH, str(size.value))


def _compare(path: Path, network: ExportWrapper, file_format: str) -> tuple[float | None, str]:
    """Run the finished file; -> the largest difference of a probability, and what ran it."""
    batches = [network.example_clips(num_clips) for num_clips in _CHECKED_BATCHES]
    answers, runtime = (_run_onnx if file_format == "onnx" else _run_pt2)(path, batches)
    if answers is None:
        return None, runtime
    expected = [network.reference(clips) for clips in batches]
    max_difference = float(np.abs(np.concatenate(answers) - np.concatenate(expected)).max())
    if not max_difference <= TOLERANCE:
        raise ExportError(
            f"the exported file does not say what the checkpoint says (probabilities differ by "
            f"{max_difference:.2g}, allowed is {TOLERANCE:g}): nothing was written."
        )
    return max_difference, runtime


def _run_pt2(path: Path, batches: list[torch.Tensor]) -> tuple[Answers, str]:
    with open(path, "rb") as file:
        network = torch.export.load(file).module()
    with torch.no_grad():
        answers = [network(clips)[1].numpy() for clips in batches]
    return answers, f"torch {torch.__version__.split('+')[0]}"


def _run_onnx(path: Path, batches: list[torch.Tensor]) -> tuple[Answers | None, str]:
    import onnx

    onnx.checker.check_model(str(path), full_check=True)
    if importlib.util.find_spec("onnxruntime") is None:
        return None, ""
    # Else it sends usage data, and leaves files in ~/.cache/Microsoft and the temporary folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    answers = [session.run(["probabilities"], {INPUT: clips.numpy()})[0] for clips in batches]
    return answers, f"ONNX Runtime {onnxruntime.__version__}"
