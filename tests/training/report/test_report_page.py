"""The report in a real browser: no console error, all pictures loaded, links lead somewhere."""

import struct
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chromium import Chromium, needs_chromium

from har.training.plots import plot_costs, svg_copies


@pytest.fixture
def page(four: tuple[list[Path], Path]) -> Path:
    return four[1] / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_has_no_console_error_all_its_pictures_and_no_sideways_scrolling(
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
    assert browser.ask("[document.documentElement.scrollWidth, innerWidth]") == [width, width]


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
        width, height = (float(root.get(k, "0").removesuffix("pt")) for k in ("width", "height"))
        png = struct.unpack(">II", path.with_suffix(".png").read_bytes()[16:24])
        assert width / height == pytest.approx(png[0] / png[1], rel=0.02)
    text = (page.parent / "fig06-loss-r3d.svg").read_text()
    assert ">Validation</text>" in text  # letters, not outlines
    assert "<dc:date>" not in text


def test_only_where_asked_a_picture_is_an_svg_too_and_always_of_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        with svg_copies():
            plot_costs(tmp_path / f"{name}.png", {"a": ("red", "o")}, {"x": [1.0]})
    plot_costs(tmp_path / "c.png", {"a": ("red", "o")}, {"x": [1.0]})
    assert {path.name for path in tmp_path.glob("*.svg")} == {"a.svg", "b.svg"}
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
