"""Where the evaluations of a run lie: RUN/eval/SPLIT-SUBSET-VIEWS/, one folder each.

So none replaces another: test and val, one view and several, the run's own split and others. In a
run of an earlier version the evaluation on test is RUN/eval.json, that on val RUN/eval-val.json.
"""

from pathlib import Path
from typing import Any

NAME = "eval.json"


def evaluation_folder(run_dir: Path, result: dict[str, Any], trained: dict[str, Any]) -> Path:
    """The folder of the evaluation `result` (content of eval.json).

    trained: the split of the run; another one's digest is in the name.
    """
    split, views = result["split"], result["views"]
    name = f"{split['name'].replace('/', 'of')}-{result['on']}-{views}view{'s' * (views > 1)}"
    if split["digest"] != trained["digest"]:
        name += f"-{split['digest'][:8]}"
    return run_dir / "eval" / name


def list_evaluations(run_dir: Path) -> list[Path]:
    """The eval.json of every evaluation of a run, those of earlier versions first."""
    return [*sorted(run_dir.glob("eval*.json")), *sorted(run_dir.glob(f"eval/*/{NAME}"))]


def examples_path(evaluation: Path) -> Path:
    """The strips of frames beside an evaluation (a path of `list_evaluations`)."""
    return evaluation.with_name(evaluation.stem.replace("eval", "examples") + ".png")
