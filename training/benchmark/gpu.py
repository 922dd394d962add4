"""`make gpu`: all that has to be known of this code on a GPU, in one command of a few minutes.

GPU tests, the speed of every model beside torchvision's plain loop, the longest kernels of each,
and the variants (`variants`) that might be faster. Everything goes into one JSON file, written
again after each part, and a Markdown page. Each part has a share of the time; what did not fit in
is named. It needs the packages that the Makefile's GPU_NEEDS names, but no video decoder, no shards
and no network.
"""

import contextlib
import functools
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from ...atomic import write_atomically
from ...errors import one_sentence
from ..config import ConfigError
from ..runtime.device import select_device
from . import bench
from .gpu_page import markdown
from .kernels import profile_step, slow_kernels
from .steps import Step, Workload, make_step
from .variants import ALL, TODAY, VARIANTS, Variant, make_variant_step

EXACT = "fp32"  # without TF32
PRECISIONS = {
    "bf16": torch.bfloat16, "fp16": torch.float16, "TF32": torch.float32, EXACT: torch.float32,
}  # fmt: skip
# When each part must end, as a share of the whole time.
_ENDS = {"tests": 0.25, "models": 0.65, "kernels": 0.75, "variants": 1.0}
_LONGEST = 10  # kernels


@dataclass(frozen=True)
class Scale:
    """How large everything is. batches: sizes, in the order of what matters."""

    frames: int = 16
    size: int = 112
    batches: tuple[int, ...] = (64, 128, 32)
    steps: int = 5
    rounds: int = 3
    models: tuple[str, ...] = ALL
    precisions: tuple[str, ...] = ("bf16", "fp16", "TF32")

    def combinations(self) -> list[tuple[int, str]]:
        """(batch size, precision) of what is timed; exact float32 once, for it is slow."""
        pairs = list(itertools.product(self.batches, self.precisions))
        return pairs if EXACT in self.precisions else [*pairs, (min(self.batches), EXACT)]


TINY = Scale(4, 16, (2,), steps=1, rounds=1, models=("convlstm", "r2plus1d"), precisions=(EXACT,))


@dataclass
class Session:
    """One run of `make gpu`. results: what the JSON file holds."""

    device: torch.device
    scale: Scale
    out: Path
    seconds: float
    compile: bool
    start: float = field(default_factory=time.monotonic)
    results: dict[str, Any] = field(default_factory=dict)

    def left(self, part: str) -> float:
        """Seconds until that part must end."""
        return self.start + _ENDS[part] * self.seconds - time.monotonic()

    def skip(self, what: str, reason: str = "no time left") -> None:
        self.results.setdefault("not run", {})[what] = reason

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / "gpu.json", json.dumps(self.results, indent=1).encode())
        write_atomically(self.out / "gpu.md", markdown(self.results).encode())

    def workload(self, batch_size: int, precision: str) -> Workload:
        scale = self.scale
        shape = (batch_size, 3, scale.frames, scale.size, scale.size)
        return Workload(shape, self.device, PRECISIONS[precision])


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--out", default="reports/gpu", show_default=True, type=click.Path(path_type=Path))
@click.option("--minutes", default=8.5, show_default=True, help="Time for all of it.")
@click.option("--tests", type=click.Path(path_type=Path), help="Folder of the GPU tests. [none]")
@click.option("--tiny", is_flag=True, help="Tiny sizes, to try the command itself.")
@click.option("--compile/--no-compile", default=True, help="Try what torch.compile makes.")
@one_sentence
def gpu_main(
    device: str, out: Path, minutes: float, tests: Path | None, tiny: bool, compile: bool
) -> None:
    """Test and measure everything on a GPU; writes OUT/gpu.json and OUT/gpu.md.

    Exit code 1 where a GPU test fails or a slow kernel appears.
    """
    target = select_gpu(device, tiny)
    torch.backends.cudnn.benchmark = True  # as in training
    session = Session(target, TINY if tiny else Scale(), out, 60 * minutes, compile)
    session.results["environment"] = describe_environment(session.device)
    parts: dict[str, Callable[[], None]] = {
        "tests": lambda: run_tests(session, tests),
        "models": lambda: run_models(session),
        "kernels": lambda: run_profiles(session),
        "variants": lambda: run_variants(session),
    }
    for name, run_part in parts.items():
        click.echo(f"{name} ...", err=True)
        if name == "tests" and tests is None:
            session.skip(name, "no --tests folder")
        else:
            run_part()
        session.save()
    click.echo(markdown(session.results))
    slow = session.results.get("slow kernels", [])
    sys.exit(1 if slow or session.results.get("tests", {}).get("exit code", 0) else 0)


def select_gpu(name: str, tiny: bool) -> torch.device:
    """The device of that name; ConfigError where it is missing, or a CPU at full size."""
    trial = "OPTIONS='--device cpu --tiny' tries the command itself, in a minute or two, on the CPU"
    try:
        device = select_device(name)
    except ConfigError as error:
        raise ConfigError(f"There is nothing to measure: {error} ({trial}.)") from error
    if device.type == "cpu" and not tiny:
        raise ConfigError(f"--device {name} takes hours at this size: {trial}.")
    return device


@contextlib.contextmanager
def float32_as(precision: str) -> Iterator[None]:
    """Convolutions in float32 compute in TF32, as by torch's default, unless it is `EXACT`."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision != EXACT
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    environment: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        environment |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory": properties.total_memory,
            "cuDNN": torch.backends.cudnn.version(),
        }
    return environment


def run_tests(session: Session, folder: Path | None) -> None:
    """The GPU tests, in a process of their own; without a GPU they fail instead of skipping."""
    on_cuda = session.device.type == "cuda"
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # for --deterministic
    if on_cuda:
        environment["HAR_REQUIRE_CUDA"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    try:
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True,
            timeout=max(1.0, session.left("tests")), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace")  # bytes, in spite of text=True
        session.results["tests"] = {"exit code": 1, "output": f"{text[-4000:]}\nout of time"}
        return
    session.results["tests"] = {"exit code": run.returncode, "output": run.stdout[-4000:]}


def run_models(session: Session) -> None:
    """Every model, batch size and precision beside the baseline, in one run each."""
    scale = session.scale
    session.results["models"] = []

    def measure(batch_size: int, precision: str) -> None:
        with float32_as(precision):
            results = bench.measure_models(
                scale.models, session.workload(batch_size, precision), scale.steps, scale.rounds,
                gpu_cache=True,
            )  # fmt: skip
        labels = {"batch_size": batch_size, "precision": precision}
        session.results["models"] += [result | labels for result in results]

    for batch_size, precision in scale.combinations():
        action = functools.partial(measure, batch_size, precision)
        _attempt(session, "models", f"batch {batch_size} in {precision}", action)
        session.save()


def run_profiles(session: Session) -> None:
    """The longest kernels of each model, and those that should not be there."""
    session.results |= {"kernels": {}, "slow kernels": []}
    workload = session.workload(session.scale.batches[0], session.scale.precisions[0])

    def profile_model(name: str) -> None:
        step = make_step(name, workload)
        step()
        kernels = profile_step(step, session.device)
        session.results["kernels"][name] = [asdict(kernel) for kernel in kernels[:_LONGEST]]
        session.results["slow kernels"] += [f"{name}: {line}" for line in slow_kernels(kernels)]

    for name in session.scale.models:
        _attempt(session, "kernels", name, functools.partial(profile_model, name))


def run_variants(session: Session) -> None:
    """Each variant beside today's step, all of a model interleaved; compiled ones come last."""
    session.results["variants"] = []
    workload = session.workload(session.scale.batches[0], session.scale.precisions[0])
    for needs in ("", "cuda", "compile"):
        for name in session.scale.models:
            variants = [v for v in VARIANTS if name in v.models and v.needs == needs]
            session.results["variants"] += _compare_variants(session, name, variants, workload)
            session.save()


def _compare_variants(
    session: Session, name: str, variants: list[Variant], workload: Workload
) -> list[dict[str, Any]]:
    steps: dict[str, Step] = {TODAY: make_step(name, workload)}
    differences: dict[str, float] = {}

    def prepare(variant: Variant) -> None:
        step, difference = make_variant_step(name, variant, workload)
        steps[variant.name], differences[variant.name] = step, difference

    for variant in variants:
        what = f"{variant.name} of {name}"
        if variant.needs == "cuda" and session.device.type != "cuda":
            session.skip(what, "needs CUDA")
        elif variant.needs == "compile" and not session.compile:
            session.skip(what, "--no-compile")
        else:
            _attempt(session, "variants", what, functools.partial(prepare, variant))
    if not differences:
        return []
    scale = session.scale
    seconds, _ = bench.time_rounds(steps, scale.steps, scale.rounds, session.device)
    return [
        {
            "model": name,
            "variant": variant,
            "ratio.today": seconds[TODAY] / seconds[variant],
            "difference": difference,
        }
        for variant, difference in differences.items()
    ]


def _attempt(session: Session, part: str, what: str, action: Callable[[], None]) -> None:
    """Do it if there is time, and note why it failed: one variant must not end the others."""
    if session.left(part) <= 0:
        session.skip(what)
        return
    try:
        action()
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        session.skip(what, f"{type(error).__name__}: {first_line}")
    if session.device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    gpu_main()
