"""Memory before the first step, after a full one, and the batch that --batch-size auto finds."""

import dataclasses
import re

import pytest
import torch
from click.testing import CliRunner
from made_shards import make_shards

from har.shards.transforms.clip_transform import ClipTransform
from har.training import config, setup
from har.training import step as steps
from har.training.cli.train import train_main
from har.training.config import AUTO, Config, ConfigError
from har.training.runtime import memory
from har.training.runtime.distributed import DistributedContext
from har.training.runtime.memory import Task

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("capacity") / "set", groups=10).root


def settings(shards, **more):
    given = {
        "shards": str(shards), "model_options": "width=4", "frames": 4, "size": 16,
        "batch_size": 8, "precision": "fp32", "device": "cpu",
    }  # fmt: skip
    return Config(**{**given, **more})


def trainer_of(shards, tmp_path, **more):
    return setup.prepare(settings(shards, **more), tmp_path, lambda _: None)


@dataclasses.dataclass(frozen=True)
class Made(Task):
    """A task whose step needs 100 bytes a clip, and 50."""

    def needs(self, clips):
        return 50 + 100 * clips


def made(device=CPU, batch_size=AUTO):
    wanted = ClipTransform(1, (1, 1), (1, 1), (0.0,) * 3, (1.0,) * 3)
    net = torch.nn.Linear(1, 1)
    return Made(Config(batch_size=batch_size), net, wanted, (1, 1, 1, 3), device, torch.float32)


@pytest.mark.parametrize(
    ("room", "most", "clips"), [(1000, 256, 8), (850, 256, 8), (849, 256, 4), (10**9, 100, 64),
    (149, 256, 0), (10**9, 1, 1)],
)  # fmt: skip
def test_the_largest_batch_is_a_power_of_two_that_fits(room, most, clips):
    assert memory.largest(made(), room, most) == clips


@pytest.mark.parametrize(
    ("free", "train", "ranks", "batch"),
    [(10**9, 9537, 1, 256), (10**9, 100, 1, 64), (2000, 9537, 1, 8), (2000, 9537, 3, 24)],
)
def test_auto_fills_a_part_of_the_memory_and_not_more_than_the_train_side(
    monkeypatch, free, train, ranks, batch
):
    monkeypatch.setattr(memory, "free", lambda _: free)
    monkeypatch.setattr(DistributedContext, "any", lambda self, number, on: number)
    found, said = memory.settle_batch(made(), train, DistributedContext(0, ranks))
    assert found.batch_size == batch
    assert said == f"--batch-size auto: {batch}"


def test_on_cuda_a_real_step_that_is_too_large_halves_the_batch(monkeypatch):
    tried, task = [], made(torch.device("cuda:0"))

    def step(model, batch, precision):
        tried.append(len(batch))
        if len(batch) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "free", lambda _: 10**9)
    monkeypatch.setattr(steps, "dummy_step", step)
    monkeypatch.setattr(steps, "random_clips", lambda count, *_: range(count))
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    found, _ = memory.settle_batch(task, 9537, DistributedContext())
    assert tried == [256, 128, 64, 32]
    assert found.batch_size == 32


def test_where_not_one_clip_fits_auto_says_so(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda _: 100)
    with pytest.raises(ConfigError, match="not one clip fits into the 0 MB free on cpu"):
        memory.settle_batch(made(), 10, DistributedContext())


def test_the_need_rises_with_the_clips_and_counts_the_optimizer(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path)
    task = memory._task(trainer)
    weights = sum(p.nbytes for p in trainer.model.parameters())
    two, four, eight = (task.needs(clips) for clips in (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=0.1)
    assert task.needs(1) < two
    plain = dataclasses.replace(task, config=dataclasses.replace(task.config, optimizer="sgd"))
    assert task.needs(2) - plain.needs(2) == weights
    trainer.close()


def test_batch_norms_over_all_ranks_are_foretold_alike(shards, tmp_path):
    plain, synced = (trainer_of(shards, tmp_path, sync_bn=sync) for sync in (False, True))
    needs = [memory._task(trainer).needs(4) for trainer in (plain, synced)]
    assert needs[0] == needs[1]
    kinds = {type(module).__name__ for module in synced.model.modules()}
    assert "SyncBatchNorm" in kinds  # the model itself is as it was
    for trainer in (plain, synced):
        trainer.close()


def test_no_estimate_does_not_hide_that_memory_is_full(shards, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("an operator that fake tensors do not know")

    trainer = trainer_of(shards, tmp_path)
    monkeypatch.setattr(Task, "needs", fail)
    assert memory.foretell(trainer) == "memory: no estimate (RuntimeError)"
    said = memory.too_large(trainer)
    trainer.close()
    assert "cpu is out of memory with 8 clips of 4x16x16 at once: use --accumulate 2" in said


def test_a_step_that_fits_is_a_line_and_one_that_does_not_a_warning(shards, tmp_path, monkeypatch):
    trainer = trainer_of(shards, tmp_path)
    assert re.fullmatch(r"memory: a step of 8 clips takes \d+ MB of .* GB free", line(trainer))
    need = memory._task(trainer).needs(3)
    monkeypatch.setattr(memory, "free", lambda _: need)
    text = line(trainer)
    trainer.close()
    assert "warning: that will hardly fit on cpu: by the estimate --batch-size 2 fits" in text
    assert "what helps most is --" in text
    assert text.count("\n") == 1


def line(trainer):
    return memory.foretell(trainer)


def test_a_convlstm_that_keeps_its_gates_is_told_of_memory_lean(shards, tmp_path):
    more = {"model": "convlstm", "model_options": "hidden=[16],stem_channels=4,memory=fast"}
    trainer = trainer_of(shards, tmp_path, size=64, batch_size=7, **more)
    trainer.room = 10
    text = memory.too_large(trainer)
    trainer.close()
    assert "cpu is out of memory with 7 clips of 4x64x64 at once: not one clip fits" in text
    assert "--model-options memory=lean" in text
    assert "--accumulate" not in text  # 7 does not halve


def test_the_two_options_that_save_most_come_first(shards, tmp_path):
    trainer = trainer_of(shards, tmp_path, size=64)
    task = memory._task(trainer)
    found = sorted(memory._options(trainer, task))
    text = memory.too_large(trainer)
    trainer.close()
    assert all(need < task.needs(8) for need, _ in found)
    assert text.index(found[0][1]) < text.index(found[1][1])


def test_full_memory_is_known_by_any_of_its_names():
    full = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate")
    assert memory.is_full(full)
    assert memory.is_full(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory.is_full(MemoryError())
    assert not memory.is_full(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_full(caught.value)


def test_memory_is_free_on_this_machine():
    assert memory.free(CPU) > 2**20


def run(*more):
    return CliRunner().invoke(train_main, [str(word) for word in more])


def test_auto_is_resolved_in_the_runs_config_and_a_resumed_run_keeps_it(
    shards, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    arguments = [
        "--shards", shards, "--out", out, "--model-options", "width=4", "--frames", "4", "--size",
        "16", "--epochs", "1", "--device", "cpu", "--precision", "fp32", "--batch-size", "auto",
    ]  # fmt: skip
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "--batch-size auto: 32" in result.output  # of 36 train clips
    assert config.from_toml(out / "config.toml").batch_size == 32
    monkeypatch.setattr(memory, "free", lambda _: 1)  # it is not asked again
    assert run("--resume", out, "--epochs", "2").exit_code == 0
    assert config.from_toml(out / "config.toml").batch_size == 32


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch-size", "auto", "--accumulate", "2"], "do not go together"),
        (["--batch-size", "many"], "neither a whole number nor 'auto'"),
        (["--cache", "gpu", "--device", "cpu"], "keeps the clips on a GPU and this run is on cpu"),
    ],
)
def test_what_does_not_go_is_one_sentence(shards, tmp_path, words, said):
    result = run("--shards", shards, "--out", tmp_path / "run", "--frames", "4", *words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


def test_auto_may_stand_in_a_settings_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('batch_size = "auto"\n')
    assert config.make({}, file).batch_size == AUTO
