"""Grids of frames as HTML."""

import cv2
import numpy as np

from wm.report.page import Html, figure, image, tag
from wm.visuals.pictures import Cell, FrameGrid, Row


def frame_grid(picture: FrameGrid, layout: str = "row") -> Html:
    """A figure with a label above each row and a caption below each cell.

    `layout` is `row`; `thin`, which shows every second cell on a phone; `wrap`, which breaks rows on a phone; or
    `columns`, with two rows next to each other where there is room.
    """
    count = max(len(row.cells) for row in picture.rows)
    rows = [_row(row, layout, count) for row in picture.rows]
    content = tag("div", rows, class_="columns") if layout == "columns" else rows
    return figure(f"{picture.title}.", picture.note, content)


def _row(row: Row, layout: str, count: int) -> Html:
    """One row. In `columns`, a row with fewer cells than the others has a line to itself."""
    alone = layout == "columns" and len(row.cells) < count
    style = f"--count:{count};--few:{(count + 1) // 2}"
    if alone:
        style = f"grid-template-columns:repeat({len(row.cells)},64px)"
    cells = [
        tag("div", _images(cell, row.label), tag("small", cell.caption) if cell.caption else None) for cell in row.cells
    ]
    strip = tag("div", cells, class_="strip" if layout in ("row", "columns") else f"strip {layout}", style=style)
    label = tag("div", row.label, class_="label")
    return tag("div", label, strip, class_="labelled", style="grid-column:1/-1" if alone else None)


def _images(cell: Cell, label: str) -> list[Html]:
    description = f"{label}, {cell.caption}" if cell.caption else label
    return [_image(frame, description, cell.marked) for frame in cell.frames]


def _image(frame: np.ndarray, description: str, marked: bool) -> Html:
    """The frame in its own 64x64 pixels, which the page enlarges."""
    if frame.dtype != np.uint8:
        frame = (frame * 255).round().clip(0, 255).astype(np.uint8)
    good, data = cv2.imencode(".webp", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 85])
    assert good, frame.shape
    height, width = frame.shape[:2]
    return image(data.tobytes(), "webp", description, width, height, class_="mark" if marked else None)
