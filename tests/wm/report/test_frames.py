"""One description of a picture as PNG and as HTML."""

import base64
import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from wm.report.frames import frame_grid
from wm.visuals.drawing import BLUE, GAP, SIDE
from wm.visuals.pictures import Cell, FrameGrid, Row, render

GREEN = np.full((64, 64, 3), (40, 160, 60), np.uint8)
GREY = np.full((64, 64, 3), 0.5, np.float32)
PICTURE = FrameGrid(
    "Two rows <b>",
    "A note.",
    (
        Row("pair", (Cell((GREEN, GREY), "error 1.5"), Cell((GREY, GREEN)))),
        Row("single", (Cell((GREEN,), "-1"), Cell((GREEN,), "0", marked=True), Cell((GREEN,), "+1"))),
    ),
)


def area(drawing: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((drawing == colour).all(axis=2).sum())


def test_a_drawing_has_every_frame_once() -> None:
    drawing = render(PICTURE)
    frame, marked = SIDE * SIDE, (SIDE - 8) ** 2  # the mark covers four pixels along each edge
    assert area(drawing, (40, 160, 60)) == 4 * frame + marked
    assert area(drawing, (128, 128, 128)) >= 2 * frame
    assert area(drawing, BLUE) > 3 * SIDE
    rows = np.flatnonzero((drawing == (40, 160, 60)).all(axis=2).any(axis=1))
    assert len(rows) == 3 * SIDE  # two rows with two frames and one frame on top of each other
    assert rows[SIDE] - rows[SIDE - 1] == GAP + 1


def test_html_has_the_same_labels_captions_and_frames() -> None:
    html = frame_grid(PICTURE)
    root = ElementTree.fromstring(re.sub(r"<img([^>]*)>", r"<img\1/>", html))
    assert "".join(root.find("figcaption").itertext()) == "Two rows <b>. A note."
    rows = root.findall("div")
    assert [row.find("div").text for row in rows] == ["pair", "single"]
    assert [x.text for x in root.iter("small")] == ["error 1.5", "-1", "0", "+1"]
    images = [[cell.findall("img") for cell in row.findall("div")[1]] for row in rows]
    assert [[len(cell) for cell in row] for row in images] == [[2, 2], [1, 1, 1]]
    assert [image.get("class") for [image] in images[1]] == [None, "mark", None]
    assert [image.get("alt") for [image] in images[1]] == ["single, -1", "single, 0", "single, +1"]
    for image, frame in zip(images[0][0], (GREEN, 128), strict=True):
        data = base64.b64decode(image.get("src").removeprefix("data:image/webp;base64,"))
        decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert decoded.shape == (64, 64, 3)
        np.testing.assert_allclose(decoded.astype(int), np.broadcast_to(frame, (64, 64, 3)), atol=6)


@pytest.mark.parametrize("layout", ["thin", "wrap", "columns"])
def test_layouts_have_the_same_content(layout: str) -> None:
    html, plain = frame_grid(PICTURE, layout), frame_grid(PICTURE)
    for content in ("<img [^>]*>", "<small>.*?</small>", 'class="label">.*?<'):
        assert re.findall(content, html) == re.findall(content, plain) != []
    assert f'class="{"columns" if layout == "columns" else f"strip {layout}"}"' in html
