"""The report in a real browser: no console error, all pictures loaded, links lead somewhere."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chromium import Chromium, needs_chromium
from made_runs import make

from har.training.plots import plot_costs, style, svg_copies
from har.training.report import write_report


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        runs = [make(root / model, model) for model in ("r3d", "r2plus1d", "resnet3d", "convlstm")]
        write_report(runs, root / "out")
    return root / "out" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    opened = Chromium(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_has_no_console_error_and_all_its_pictures(
    browser: Chromium, page: Path, width: int
):
    browser.resize(width)
    browser.requests.clear()
    browser.go(page.as_uri())
    pictures = browser.ask("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(pictures) > 10
    assert all(pictures)
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    wide = browser.ask("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] == wide[1] == width


@needs_chromium
def test_no_table_hides_a_column_on_a_phone(browser: Chromium, page: Path):
    browser.resize(390)
    browser.go(page.as_uri())
    hidden = browser.ask(
        "[...document.querySelectorAll('table')].filter(t => t.parentElement.scrollWidth"
        " > t.parentElement.clientWidth).map(t => t.ariaLabel)"
    )
    assert hidden == []
    cells = browser.ask("[...document.querySelectorAll('td')].map(c => c.offsetWidth)")
    assert len(cells) > 100
    assert min(cells) > 20


@needs_chromium
def test_a_wide_table_names_each_cell_on_a_phone_and_stays_a_table_on_a_desk(
    browser: Chromium, page: Path
):
    before = "getComputedStyle(document.querySelector('.list td'), '::before').content"
    shown = "getComputedStyle(document.querySelector('.list td')).display"
    browser.resize(390)
    browser.go(page.as_uri())
    assert browser.ask(f"{before}.replace('\" \"', '')") == '"Parameters: "'
    assert browser.ask(shown) == "block"
    browser.resize(1280)
    assert browser.ask(before) == "none"
    assert browser.ask(shown) == "table-cell"


@needs_chromium
def test_every_link_of_the_report_leads_to_a_section(browser: Chromium, page: Path):
    browser.resize(390)
    browser.go(page.as_uri())
    links = browser.ask("[...document.links].map(a => a.getAttribute('href'))")
    assert len(links) >= 7
    for number, link in enumerate(links):
        browser.ask(f"document.links[{number}].click()")
        assert browser.ask("decodeURI(location.hash)") == link
        top = browser.ask("document.querySelector(':target').getBoundingClientRect().top")
        end = browser.ask("scrollY + innerHeight >= document.documentElement.scrollHeight - 1")
        assert abs(top) < 2 or end
    assert browser.console == []


def test_every_picture_drawn_here_is_there_as_svg_too(page: Path):
    drawn = {path.stem for path in page.parent.glob("*.png")}
    vectors = sorted(page.parent.glob("*.svg"))
    assert {path.stem for path in vectors} == drawn
    for path in vectors:
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith("svg")
        width, height = (
            float(root.get(side, "0").removesuffix("pt")) for side in ("width", "height")
        )
        png = struct.unpack(">II", path.with_suffix(".png").read_bytes()[16:24])
        assert width / height == pytest.approx(png[0] / png[1], rel=0.02)
    text = (page.parent / "fig06-loss-r3d.svg").read_text()
    assert ">Validation</text>" in text  # letters, not outlines
    assert "Matplotlib v" not in text or "<dc:date>" not in text


def test_a_runs_own_pictures_have_no_svg(tmp_path: Path):
    plot_costs(tmp_path / "c.png", ["a"], ["r3d"], {"x": [1.0]})
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]


def test_the_same_numbers_give_the_same_svg(tmp_path: Path):
    texts = []
    for name in ("a", "b"):
        with svg_copies():
            plot_costs(tmp_path / f"{name}.png", ["a"], ["r3d"], {"x": [1.0]})
        texts.append((tmp_path / f"{name}.svg").read_bytes())
    assert texts[0] == texts[1]
