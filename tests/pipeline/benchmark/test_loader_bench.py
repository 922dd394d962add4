"""har-bench-loader: what it prints, its ratios, and (slow) a whole run on a tiny set."""

import json

import pytest
from click.testing import CliRunner
from made_tars import make_tars
from made_videos import encode, ffmpeg, needs_ffmpeg
from semaphores import needs_semaphores

from har.pipeline import synthetic
from har.pipeline.benchmark import BenchError, loader_bench, video_loaders
from har.pipeline.benchmark.loaders import dataloader_batches, har_loaders, memcpy
from har.pipeline.cli import bench_loader_main

RATIOS = {"dataloader", "webdataset", "litdata", "memcpy", "sequential", "paper_augmented",
          "paper_raw"}  # fmt: skip


def test_ratios_are_those_of_the_medians_and_null_where_one_is_missing():
    rates = {"har": [10.0, 30.0, 20.0], "har_sequential": [25.0], "har_augmented": [6.0],
             "har_torch": [2.0], "memcpy": [40.0], "dataloader": [4.0], "webdataset": [5.0],
             "paper": [0.1]}  # fmt: skip
    summary = loader_bench.summarize(rates, {name: [1.0] for name in rates})
    assert summary["ratio.memcpy"] == 0.5
    assert summary["ratio.sequential"] == 0.8
    assert summary["ratio.paper_augmented"] == pytest.approx(60)
    assert summary["ratio.paper_raw"] == pytest.approx(200)
    assert summary["ratio.litdata"] is None
    assert {f"ratio.{name}" for name in RATIOS} <= set(summary)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        *(("--workers", text, "give numbers from 0 on") for text in ("two", "", "-1", "1,,2")),
        ("--videos", ".", "no video under"),
        ("--videos", "none", "no video under"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, option, value, says):
    monkeypatch.chdir(tmp_path)
    make_tars(tmp_path / "set")
    result = CliRunner().invoke(bench_loader_main, ["set", option, value])
    assert (result.exit_code, says in result.output) == (2, True)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=needs_semaphores)])
def test_candidates_pass_over_every_clip(tmp_path, workers):
    manifest = make_tars(tmp_path / "set")
    assert sum(memcpy(manifest, 8, workers)()) == 34
    for candidate in (
        *har_loaders(manifest, 17, workers).values(),
        dataloader_batches(manifest, 17, workers),
    ):
        assert list(candidate()) == [17, 17]


def test_without_semaphores_it_says_what_it_needs(monkeypatch):
    def fail():
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(loader_bench.multiprocessing, "Lock", fail)
    with pytest.raises(BenchError, match=r"Read-only.*give this container a /dev"):
        loader_bench.measure(None, 2, 8, 1, [], None)


@pytest.mark.parametrize(("batch_size", "counted"), [(8, 32), (40, 34)])
def test_padding_that_nobody_counts_is_not_read(tmp_path, batch_size, counted):
    candidates = har_loaders(make_tars(tmp_path / "set"), batch_size, 2).values()
    assert [sum(candidate()) for candidate in candidates] == [counted] * 3


def test_the_first_batch_is_timed_from_nothing(tmp_path):
    assert 0 < loader_bench._first_batch(make_tars(tmp_path / "set"), 2, 8) < 30


@needs_ffmpeg
def test_the_baseline_in_pyav_decodes_the_stream_that_a_player_shows(tmp_path):
    video, cover, path = tmp_path / "a.mp4", tmp_path / "cover.png", tmp_path / "b.mp4"
    encode(video, ["-c:v", "libx264"], frames=8)
    ffmpeg("-f", "lavfi", "-i", "color=red:size=64x48", "-frames:v", "1", cover)
    mapped = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", cover, "-i", video, *mapped, path)
    clip = video_loaders._PyAVDataset([path], 8)[0]
    assert clip.shape == (3, 8, 112, 112)
    assert (clip[:, 0] != clip[:, 7]).any()  # of a cover all frames are one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other loaders' own
def test_a_whole_run_prints_every_ratio_and_draws_its_bars(tmp_path):
    pytest.importorskip("cv2")
    manifest = make_tars(tmp_path / "set", shards=4, shape=(4, 64, 80, 3))
    synthetic.write_videos(tmp_path / "videos", groups=1, clips=1)
    arguments = [str(manifest.root), "--videos", str(tmp_path / "videos"), "--rounds", "1",
                 "--json", "--batch-size", "4", "--workers", "0,2", "--cold",
                 "--plot", str(tmp_path / "bars.png")]  # fmt: skip
    result = CliRunner().invoke(bench_loader_main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout[result.stdout.index("{\n") :])
    assert all(found[f"ratio.{name}"] > 0 for name in RATIOS - {"litdata"})
    assert found["first_batch_s"] > 0
    assert [run["workers"] for run in found["by_workers"]] == [0, 2]
    assert (tmp_path / "bars.png").stat().st_size > 5000
    assert "paper's way" in loader_bench._table(found)
