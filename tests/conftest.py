"""Fixtures that more than one test file needs."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as har-export does


# Files that take long. They start first: a worker that begins one at the end lets the others wait.
_LONG_FILES = (
    "test_commands_touch_nothing", "test_build", "test_notebook", "test_predictor", "test_serve",
    "test_train", "test_resume", "test_mending", "test_bare_machine", "test_distributed",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in _LONG_FILES)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shards of URLs are cached here, not in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _kept_decoders() -> Iterator[None]:
    """Decoder processes go from one build to the next: starting one takes two seconds."""
    if importlib.util.find_spec("av") is None:  # the GPU tests run where there is no PyAV
        yield
        return
    from kept_decoders import keep_decoders

    with keep_decoders():
        yield


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder with `ucf101/`, `odd/` and `ucfTrainTestlist/`; skips where it is absent."""
    project = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("HAR_REAL_CLIPS", project.parent / "shared" / "real"))
    if not (folder / "ucf101").is_dir():
        pytest.skip(f"no real clips: {folder}/ucf101 is missing (set HAR_REAL_CLIPS)")
    return folder


@pytest.fixture(scope="session")
def synthetic_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic set of 6 classes x 5 groups x 1 clip; read it, do not change it."""
    from har.pipeline import synthetic  # not above: the GPU tests run where there is no PyAV

    folder = tmp_path_factory.mktemp("synthetic") / "videos"
    synthetic.write_videos(folder, groups=5, clips=1)
    return folder


@pytest.fixture(scope="session")
def quick_pictures() -> Iterator[None]:
    """Drawing two curves an epoch takes more time than a tiny epoch, and drawing at 200 dpi most of
    the time of a report; this is for tests that look at neither."""
    from har.training import loop
    from har.training.plots import style

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        patch.setattr(loop, "plot_model_curves", lambda path, *_: path.touch())
        yield


@pytest.fixture
def made_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a font with 走, 3 and a space (squares), the only one installed beside DejaVu's."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square" for character in "走3 "})
    builder.setupGlyf(dict.fromkeys((".notdef", "square"), pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "square"), (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Made Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = str(tmp_path / "made.ttf")
    builder.save(path)
    entries = [e for e in font_manager.fontManager.ttflist if e.name.startswith("DejaVu Sans")]
    entries.append(font_manager.ttfFontProperty(font_manager.get_font(path)))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    return "Made Sans"


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not rendered, for tests that look at what lies beside the pictures."""
    from har.training.plots import style

    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "PNG")
    monkeypatch.setattr(style, "encode_figure", lambda *_, **__: picture.getvalue())
