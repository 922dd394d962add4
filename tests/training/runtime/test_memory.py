"""Free memory, the batch that --batch-size auto finds, and the sentence when memory is full."""

from pathlib import Path

import pytest
import torch
from tiny_train import har_train, message, prepared, train

from har.training import config, loop, setup
from har.training.config import AUTO, Config, ConfigError
from har.training.runtime import memory
from har.training.runtime.distributed import DistributedContext
from har.training.runtime.memory import BatchTrial

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.mark.parametrize(
    ("fitting", "limit", "clips"),
    [(8, 256, 8), (15, 256, 8), (10**9, 100, 64), (4, 256, 4), (1, 256, 1), (0, 256, 0), (9, 1, 1)],
)
def test_the_batch_doubles_until_it_fails_and_halves_where_it_starts_too_large(
    fitting, limit, clips
):
    assert memory.find_batch_size(lambda size: size <= fitting, limit) == clips


@pytest.mark.parametrize(
    ("free", "train", "ranks", "batch"),
    [(10**9, 9537, 1, 256), (10**9, 100, 1, 64), (2000, 9537, 1, 16), (2000, 9537, 3, 48)],
)
def test_on_the_cpu_auto_fills_a_part_of_the_memory_and_not_more_than_the_train_subset(
    monkeypatch, free, train, ranks, batch
):
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    monkeypatch.setattr(memory, "saved_bytes", lambda step: step() or 0)
    monkeypatch.setattr(DistributedContext, "all_reduce_max", lambda self, number, device: number)
    trial = BatchTrial(lambda clips: None, CPU, 50, 50, 90)
    assert trial.find(train, DistributedContext(0, ranks)) == batch


def test_on_cuda_a_real_step_that_is_too_large_ends_the_search(monkeypatch):
    tried = []

    def step(clips):
        tried.append(clips)
        if clips > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "free_bytes", lambda _: 10**9)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    assert BatchTrial(step, CUDA, 0, 0, 0).find(9537, DistributedContext()) == 32
    assert tried == [8, 16, 32, 64]


def test_where_not_one_clip_fits_auto_says_so(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _: 100)
    monkeypatch.setattr(memory, "saved_bytes", lambda _: 0)
    with pytest.raises(ConfigError, match=r"not one clip fits into the 0\.0 GB free on cpu"):
        BatchTrial(lambda clips: None, CPU, 0, 0, 101).find(10, DistributedContext())


def test_a_trial_counts_what_a_step_saves_and_leaves_the_model_as_it_was(shards):
    state = prepared(shards, size=32)
    state.close()
    trial = setup.make_trial(
        state.config, state.task, state.model, state.transform, CPU, torch.float32, cache_bytes=0
    )
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    two, four, eight = (memory.saved_bytes(lambda n=n: trial.step(n)) for n in (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=0.01)
    assert two > 2 * 3 * 4 * 32 * 32 * 4  # the input alone
    assert all(torch.equal(before[name], v) for name, v in state.model.state_dict().items())
    assert all(p.grad is None for p in state.model.parameters())


@pytest.mark.parametrize(
    ("settings", "device", "words"),
    [
        ({}, CPU, ["--grad-accum-steps 2 (the same batch in more parts), --frames 8 or"]),
        ({"batch_size": 7}, CPU, ["with 7 clips of 16 frames at once: use --frames 8 or"]),
        ({"model": "convlstm"}, CPU, ["--recompute on"]),
        ({"cache": "gpu"}, CUDA, ["--cache ram", "--precision bf16"]),
    ],
)
def test_a_full_memory_names_what_helps(settings, device, words):
    given = Config(**settings)
    text = memory.out_of_memory_message(
        given, given.batch_size, device, torch.float32, Path("runs/a")
    )
    assert text.startswith(f"{device} is out of memory with {given.batch_size} clips of 16 frames")
    assert text.endswith("a smaller --size or --batch-size; what was saved is in runs/a.")
    assert all(word in text for word in words)


def test_full_memory_is_known_by_any_of_its_names():
    full = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate")
    assert memory.is_out_of_memory(full)
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory.is_out_of_memory(MemoryError())
    assert not memory.is_out_of_memory(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)


def test_memory_is_free_on_this_machine():
    assert memory.free_bytes(CPU) > 2**20


def test_a_full_memory_in_training_is_one_sentence(shards, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(loop, "train_step", full)
    result = train(shards, tmp_path / "run")
    assert result.exit_code == 2
    assert "cpu is out of memory with 6 clips of 4 frames at once: use --grad-accum-steps 2" in (
        message(result)
    )


def test_auto_is_resolved_in_the_runs_config_and_a_resumed_run_keeps_it(
    shards, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    result = train(shards, out, "--epochs", 1, "--batch-size", "auto")
    assert result.exit_code == 0, result.output
    assert "--batch-size auto: 16" in result.output  # of 18 train clips
    assert config.make({}, out / "config.toml").batch_size == 16
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1)  # it is not asked again
    assert har_train("--resume", out, "--epochs", 2).exit_code == 0
    assert config.make({}, out / "config.toml").batch_size == 16


def test_auto_may_stand_in_a_settings_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('batch_size = "auto"\n')
    assert config.make({}, file).batch_size == AUTO
