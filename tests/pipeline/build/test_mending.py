"""A build that is run again: rejects are looked at again, finished sets are checked and repaired,
and each message's advice works."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import killed_edits
import made_videos
import pytest
from click.testing import CliRunner
from made_builds import (
    OPTIONS,
    build,
    build_command,
    hook_decoder,
    tree_bytes,
    upload,
    url_bytes,
)

from har.pipeline.build import BuildError, BuildOptions, RunOptions, load_rejects
from har.pipeline.cli import shards_main
from har.pipeline.inspect import describe_build
from har.pipeline.sampling import ClipSampler
from har.shards.format import (
    CLASSES,
    INDEX,
    MANIFEST,
    REJECTS,
    ShardSetError,
    load_manifest,
    verify_full,
)

FULL = RunOptions(workers=1, quiet=True, check="full")


@pytest.fixture
def finished(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "set"))


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("rejects.jsonl", "[]", "info"), ("rejects.jsonl", "\n{}\n", "build"),
        ("rejects.jsonl", None, "info"), (".build/plan.json", "", "build"),
        (".build/plan.json", "[]", "build"), (".build/edit.json", "", "verify"),
    ],
)  # fmt: skip
def test_what_is_damaged_beside_the_shards_is_named(
    videos: Path, finished: Path, name: str, text: str | None, command: str
) -> None:
    path = finished / name
    path.parent.mkdir(exist_ok=True)
    if text is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_text(text)
    if "plan" in name:
        (finished / MANIFEST).unlink()
    words = [command, str(finished)]
    if command == "build":
        words = ["build", str(videos), "--out", str(finished), "--frames", "4", "--size", "24x32"]
    done = CliRunner().invoke(shards_main, words)
    assert done.exit_code == 2
    assert f"{name} is damaged" in " ".join(done.output.split())


def _times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


def _break(path: Path, how: str) -> bytes:
    """Make a video one that gives no clip; -> what it was. same size: only its time tells."""
    data = path.read_bytes()
    path.write_bytes(b"x" if how == "other size" else bytes(len(data)))
    return data


@pytest.mark.parametrize("how", ["other size", "same size"])
@pytest.mark.parametrize("is_finished", [True, False])
def test_mended_videos_are_taken_in_by_the_same_command_and_other_shards_are_kept(
    videos: Path, built: Path, tmp_path: Path, how: str, is_finished: bool
) -> None:
    root, out = Path(shutil.copytree(videos, tmp_path / "videos")), tmp_path / "set"
    broken = [root / "YoYo" / f"v_YoYo_g0{group}_c01.avi" for group in (1, 3)]
    contents = [_break(path, how) for path in broken]
    strict = RunOptions(workers=1, max_rejects=1, quiet=True)
    if is_finished:
        assert build(root, out).rejects == 2
    else:
        with pytest.raises(BuildError, match="mend them or allow more, and run the same command"):
            build(root, out, run_options=strict)
    times = _times(out)
    broken[0].write_bytes(contents[0])
    with ThreadPoolExecutor(1) as executor:  # any executor does all of it
        manifest = build(root, out, run_options=strict, executor=executor)
    assert (manifest.rejects, [reject["key"] for reject in load_rejects(out)]) == (
        1, ["v_YoYo_g03_c01"],
    )  # fmt: skip
    changed = {name for name, changed_at in _times(out).items() if times[name] != changed_at}
    assert len(changed) == 1 < len(times)
    assert verify_full(manifest) == []
    broken[1].write_bytes(contents[1])
    build(root, out, run_options=strict)
    assert tree_bytes(out) == tree_bytes(built)


def test_a_reject_that_stays_as_it_is_is_not_decoded_again_and_the_set_keeps_its_bytes(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = Path(shutil.copytree(videos, tmp_path / "videos")), tmp_path / "set"
    path = root / "Punch" / "v_Punch_g02_c02.avi"
    path.write_bytes(b"no video")
    (root / "Punch" / "v_Punch_g02_c01.avi").unlink()
    (root / "Punch" / "v_Punch_g02_c01.avi").symlink_to("missing.avi")  # is looked at each time
    build(root, out)
    before, digest = tree_bytes(out), load_manifest(out).digest
    log = tmp_path / "log"
    hook_decoder(tmp_path / "hook", monkeypatch, f"open({str(log)!r}, 'a').write(path + chr(10))")
    logged = RunOptions(1, timeout=99, quiet=True)
    os.utime(path)  # the same bytes at another time are no change
    build(root, out, run_options=logged)
    assert str(path) not in log.read_text().splitlines()
    assert [reject["key"][-7:] for reject in load_rejects(out)] == ["g02_c01", "g02_c02"]
    path.write_bytes(b"no video either")
    build(root, out, run_options=logged)
    assert str(path) in log.read_text().splitlines()
    log.unlink()
    build(root, out, run_options=logged)
    assert str(path) not in log.read_text().splitlines()
    assert load_manifest(out).digest == digest
    after = tree_bytes(out)
    assert {name for name in before if before[name] != after[name]} == {REJECTS}


FAULTS = {
    "Punch_g01_c01": ("time.sleep(3600)", "no answer within 1.5 s"),
    "Punch_g02_c01": ("os.kill(os.getpid(), 9)", "the decoder died of it (signal 9)"),
    "Punch_g03_c01": ("raise PermissionError(13, 'Permission denied')", "(Permission denied)"),
    "YoYo_g03_c01": ("raise OSError(5, 'Input/output error')", "(Input/output error)"),
    "YoYo_g04_c01": ("raise MemoryError", "(MemoryError)"),
}


def test_what_failed_for_a_reason_that_can_pass_is_looked_at_again(
    videos: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        lines = [f"if '{key}' in path:\n    {fault}" for key, (fault, _) in FAULTS.items()]
        hook_decoder(tmp_path / "hook", patch, "\n".join(lines))
        manifest = build(videos, out, run_options=RunOptions(1, timeout=1.5, quiet=True))
    rejects = load_rejects(out)
    assert {reject["key"].removeprefix("v_") for reject in rejects} == set(FAULTS)
    for reject in rejects:
        assert FAULTS[reject["key"].removeprefix("v_")][1] in reject["reason"]
    late = "v_Punch_g01_c01.avi: no answer within 1.5 s (give a larger --timeout)"
    assert late in describe_build(manifest, out)
    build(videos, out)
    assert tree_bytes(out) == tree_bytes(built)


def test_a_video_of_another_size_has_its_shard_made_again_in_an_unfinished_build(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = Path(shutil.copytree(videos, tmp_path / "videos")), tmp_path / "set"
    (root / "YoYo" / "v_YoYo_g04_c02.avi").write_bytes(b"x")
    with pytest.raises(BuildError, match="more than --max-rejects 0"):
        build(root, out, run_options=RunOptions(1, max_rejects=0, quiet=True))
    times = _times(out)
    made_videos.write(root / "Punch" / "v_Punch_g01_c01.avi", frames=20, seed=7)
    made_videos.write(root / "YoYo" / "v_YoYo_g04_c02.avi", frames=20, seed=8)
    build(root, out)
    changed = {name for name, changed_at in _times(out).items() if times[name] != changed_at}
    assert changed == {min(times), max(times)}
    build(root, tmp_path / "fresh")
    assert tree_bytes(out) == tree_bytes(tmp_path / "fresh")
    made_videos.write(root / "Punch" / "v_Punch_g01_c01.avi", frames=30, seed=7)
    with pytest.raises(BuildError, match="the list of videos, their sizes or the shard size"):
        build(root, out)  # in a finished set: it may be wanted as it is


def _remove(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def _flip(name: str, offset: int) -> Callable[[Path], None]:
    def flip(out: Path) -> None:
        data = bytearray((out / name).read_bytes())
        data[offset] ^= 1
        (out / name).write_bytes(data)

    return flip


def _of_schema_1(out: Path) -> None:
    """Of an older version, whose manifests are refused with the advice to build again."""
    body = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps({**body, "schema": 1}))
    with pytest.raises(ShardSetError, match="build the shards again with 'har-shards build'"):
        load_manifest(out)


def _cut(name: str) -> Callable[[Path], None]:
    return lambda out: os.truncate(out / name, 700)


@pytest.mark.parametrize(
    ("damage", "num_kept"),
    [
        (_remove("shard-000003.tar"), 7),
        (_cut("shard-000000.tar"), 7),
        (_flip("shard-000005.tar", 3000), 7),
        (_remove(MANIFEST), 8),
        (_flip(MANIFEST, 0), 8),
        (_of_schema_1, 8),
        (_remove(INDEX), 0),
        (_flip(INDEX, 300), 0),
        (lambda out: (_remove(MANIFEST)(out), _remove("shard-000002.tar")(out)), 7),
        (lambda out: (_remove(MANIFEST)(out), _flip("shard-000002.tar", 2000)(out)), 7),
        (_remove(REJECTS), 8),
        (_remove(CLASSES), 8),
    ],
)
def test_what_is_missing_or_wrong_in_a_finished_set_is_made_again(
    videos: Path, built: Path, finished: Path, damage: Callable[[Path], None], num_kept: int
) -> None:
    times = _times(finished)
    damage(finished)
    build(videos, finished, run_options=FULL)
    assert tree_bytes(finished) == tree_bytes(built)
    assert sum(_times(finished)[name] == times[name] for name in times) == num_kept


def test_the_advice_of_verify_and_of_a_reader_is_followed(
    videos: Path, built: Path, finished: Path
) -> None:
    """As a user does it: the command that the message names, and nothing else."""

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(shards_main, arguments)
        return result.exit_code, result.output

    again = build_command(videos, finished)[3:]
    _flip("shard-000005.tar", 3000)(finished)
    code, text = run("verify", str(finished))
    assert (code, "run the same 'har-shards build' again with --check full" in text) == (1, True)
    code, text = run(*again)
    assert "each of its 8 shards has its size (--check full compares every byte)" in text
    code, text = run(*again, "--check", "full")
    assert "shard-000005.tar, sample v_" in text
    assert "pixels do not match their checksum: made again" in text
    assert run("verify", str(finished))[0] == 0
    (finished / MANIFEST).unlink()
    code, text = run("verify", str(finished))
    assert (code, "lost its manifest.json: run the same 'har-shards build' again" in text) == (
        2, True,
    )  # fmt: skip
    assert run(*again)[0] == 0
    assert tree_bytes(finished) == tree_bytes(built)
    code, text = run(*again, "--check", "full")
    assert "each of its 8 shards is as written, every byte of them" in text
    (finished / "shard-000099.tar").write_bytes(b"mine")
    code, text = run("verify", str(finished))
    assert (code, "move it elsewhere" in text) == (1, True)
    code, text = run(*again)
    assert (code, "shard-000099.tar: is not of this set" in text, "left alone" in text) == (
        0, True, True,
    )  # fmt: skip
    assert (finished / "shard-000099.tar").read_bytes() == b"mine"


def test_shards_without_a_manifest_are_not_taken_for_what_they_are_not(
    videos: Path, finished: Path, tmp_path: Path
) -> None:
    (finished / MANIFEST).unlink()
    before = tree_bytes(finished)
    for options in (
        dataclasses.replace(OPTIONS, fit="crop", size=(24, 24)),
        BuildOptions(ClipSampler("uniform", 4), OPTIONS.size),
    ):
        with pytest.raises(BuildError, match="give another --out, or remove it first"):
            build(videos, finished, options)
    others = made_videos.tree(tmp_path / "others", groups=3)
    with pytest.raises(BuildError, match="of a shard set of other videos or options"):
        build(others, finished)
    assert tree_bytes(finished) == before
    (finished / INDEX).unlink()
    with pytest.raises(BuildError, match=r"is not empty \(classes\.txt|\(rejects\.jsonl|\(shard-"):
        build(videos, finished)


@pytest.mark.parametrize(
    "damage",
    [
        _remove("shard-000003.tar"), _remove(MANIFEST), _remove(INDEX),
        _flip("shard-000001.tar", 4000),
    ],
)  # fmt: skip
def test_a_set_behind_a_url_is_repaired(
    videos: Path, built: Path, finished: Path, damage: Callable[[Path], None]
) -> None:
    damage(finished)
    url = f"memory://{finished.parent.name}"
    upload(finished, url)
    build(videos, url, run_options=FULL)
    assert url_bytes(url) == tree_bytes(built)


@pytest.mark.slow
def test_a_repair_killed_at_any_moment_goes_on(videos: Path, tmp_path: Path) -> None:
    """At 10 of the moments at which it changes files. Two shards are gone, one is wrong, and a
    rejected video is mended meanwhile."""
    pristine = tmp_path / "pristine"
    root, damaged = Path(shutil.copytree(videos, pristine / "videos")), pristine / "set"
    path = root / "YoYo" / "v_YoYo_g04_c02.avi"
    content = _break(path, "other size")
    build(root, damaged)
    path.write_bytes(content)
    _remove("shard-000001.tar")(damaged)
    _remove("shard-000003.tar")(damaged)
    _flip("shard-000002.tar", 3000)(damaged)
    assert "10 of " in killed_edits.check("repair", tmp_path, 10)
