"""A report in a browser, at the widths of a phone and a desktop, in light and dark."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser

from wm.report.run_page import run_report
from wm.runs.run import Run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")

PICTURES = """Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth)))"""


@pytest.fixture(scope="module")
def report(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(run_report(tiny))
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_renders_without_errors(
    chromium: Browser, report: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    chromium.open(report, width, 844, scheme, mobile=width < 600)
    widths = chromium.evaluate(PICTURES)
    assert len(widths) > 50
    assert min(widths) > 0
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("document.body.innerText.includes('Score against generation')")
    paper = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in paper.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness > 600) == (scheme == "light")
    assert chromium.complaints == []
    chromium.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_defects_are_detected(chromium: Browser, tmp_path: Path) -> None:
    """A page with a broken picture, a script error and content that is too wide."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<img src='data:image/png;base64,AAAA'><p style='width:900px'>x</p><script>console.error('oh')</script>"
    )
    chromium.open(page, 390, 844, "light", mobile=False)
    assert chromium.evaluate("document.images[0].naturalWidth") == 0
    assert chromium.evaluate("document.documentElement.scrollWidth") > 390
    assert len(chromium.complaints) == 1
