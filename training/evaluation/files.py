"""Where the evaluations of a run lie, RUN/eval/SPLIT-SUBSET-VIEWS/, and what is in such a folder.

So none replaces another: test and val, one view and several, the run's own split and others, other
shards, other checkpoints than best.pt. In a run of an earlier version the evaluation on test is
RUN/eval.json, that on val RUN/eval-val.json.
"""

import csv
import io
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic import write_atomically
from ...shards.format import ClipReader, Manifest
from ..plots import DISPLAY_NAMES, choose_examples, plot_confusion, plot_examples
from ..runtime.run_dir import write_json
from .probabilities import NAME as PROBABILITIES_NAME
from .probabilities import Probabilities, save_probabilities

NAME = "eval.json"


def evaluation_folder(result: dict[str, Any], state: dict[str, Any]) -> str:
    """The folder, in the run's, of the evaluation `result` (content of eval.json) of the checkpoint
    `state`. What is not the run's own is in the name: split, shard set, checkpoint."""
    split, views = result["split"], result["views"]
    name = f"{split['name'].replace('/', 'of')}-{result['on']}-{views}view{'s' * (views > 1)}"
    if split["digest"] != state["split"]["digest"]:
        name += f"-{split['digest'][:8]}"
    elif result["manifest_digest"] != state.get("manifest_digest", result["manifest_digest"]):
        name += f"-shards-{result['manifest_digest'][:8]}"
    if result["checkpoint"] != "best.pt":
        name += f"-{Path(result['checkpoint']).stem}"
    return f"eval/{name}"


def list_evaluations(run_dir: Path) -> list[Path]:
    """The eval.json of every evaluation of a run, those of earlier versions first."""
    return [*sorted(run_dir.glob("eval*.json")), *sorted(run_dir.glob(f"eval/*/{NAME}"))]


def examples_path(evaluation: Path) -> Path:
    """The strips of frames beside an evaluation (a path of `list_evaluations`)."""
    return evaluation.with_name(evaluation.stem.replace("eval", "examples") + ".png")


def probabilities_path(evaluation: Path) -> Path:
    """The probabilities beside an evaluation (a path of `list_evaluations`)."""
    return evaluation.with_name(PROBABILITIES_NAME)


def write_evaluation(
    result: dict[str, Any], probabilities: Probabilities, manifest: Manifest
) -> None:
    """Probabilities, CSV and pictures, then eval.json: where that is, all is there."""
    folder = Path(result["run"], result["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    save_probabilities(folder / PROBABILITIES_NAME, probabilities)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(result["per_class"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["per_class"])
    write_atomically(folder / "per_class.csv", table.getvalue().encode())
    title = f"{DISPLAY_NAMES.get(result['model'], result['model'])} on {result['on']}"
    classes = [row["class"] for row in result["per_class"]]
    matrix = np.array(result["confusion"])
    plot_confusion(folder / "confusion.png", matrix, classes, title)
    _write_examples(folder / "examples.png", result, manifest)
    write_json(folder / NAME, result)


def _write_examples(path: Path, result: dict[str, Any], manifest: Manifest) -> None:
    """Strips of frames: the most confident right and wrong answers."""
    examples = choose_examples(result["predictions"])
    index_of_key = {key: index for index, key in enumerate(manifest.keys())}
    with closing(ClipReader(manifest)) as reader:
        pixels = [reader.read(index_of_key[example["key"]]) for example in examples]
    plot_examples(path, examples, pixels)
