"""A page of HTML that holds all it shows. Text is escaped unless it is markup of our own making.

No script, no link to anywhere: the page forbids them to itself, so even a name that were markup could do nothing.
"""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from wm.visuals.style import CSS

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
EMPTY = {"img", "meta", "source", "line", "rect", "circle", "path", "polyline", "polygon"}


class Html(str):
    """Markup. Every other string is text and gets escaped where it enters the page."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element: `class_` stands for class, other underscores for hyphens; None leaves an attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in EMPTY and not children:
        return Html(f"<{name}{given}>" if name in ("img", "meta", "source") else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Html:
    """Markup as it is, text escaped, sequences one after the other, None nothing."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, (list, tuple)):
            parts.append(joined(child))
        elif child is not None:
            parts.append(html.escape(str(child)))
    return Html("".join(parts))


def said(text: str) -> Html:
    """Text in which `this` is code."""
    parts = re.split(r"`([^`]*)`", text)
    return joined(tag("code", part) if index % 2 else part for index, part in enumerate(parts))


def page(title: str, *content: Any) -> str:
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", Html(CSS)),
    )
    body = tag("body", tag("main", *content))
    return f"<!doctype html>\n{tag('html', tag('head', *head), body, lang='en')}\n"


def section(title: str, lead: Any, *content: Any) -> Html:
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *content)


def columns(*content: Any) -> Html:
    """Side by side where there is room."""
    return tag("div", *content, class_="columns")


def figure(title: Any, note: Any, *content: Any) -> Html:
    caption = tag("figcaption", tag("b", title), " ", tag("span", note) if note else None)
    return tag("figure", caption, *content)


def missing(text: str) -> Html:
    """One line that says what is not there and what makes it."""
    return tag("p", said(text[:1].upper() + text[1:] + "."), class_="missing")


def table(heads: Sequence[Any], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = (), strong: int = -1) -> Html:
    """`numbers` are the columns to align right, `strong` the row that matters."""
    right = set(numbers)

    def cells(kind: str, row: Sequence[Any]) -> list[Html]:
        return [tag(kind, cell, class_="number" if at in right else None) for at, cell in enumerate(row)]

    body = [tag("tr", cells("td", row), class_="strong" if at == strong else None) for at, row in enumerate(rows)]
    head = tag("thead", tag("tr", cells("th", heads))) if any(heads) else None
    return tag("table", head, tag("tbody", body), class_="figures" if len(right) > 1 else None)


def facts(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """A few numbers with what they are."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs], class_="facts")


def commands(lines: Iterable[str]) -> Html:
    return tag("pre", tag("code", "\n".join(lines)))


def folded(title: str, *content: Any) -> Html:
    """Shown when asked for."""
    return tag("details", tag("summary", title), *content)


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image(data: bytes, kind: str, about: str, width: int, height: int, **attributes: Any) -> Html:
    return tag("img", src=data_uri(data, kind), alt=about, width=width, height=height, **attributes)


def strip(cells: Sequence[tuple[Any, Any]], label: Any = None, kind: str = "row") -> Html:
    """Small pictures, each with a few words below it: in a `row`, a `thin` one that shows every second on a phone,
    or in as many rows as they take (`wrap`)."""
    shown = [tag("div", picture, tag("small", words) if words else None) for picture, words in cells]
    style = f"--count:{len(cells)};--few:{(len(cells) + 1) // 2}"
    row = tag("div", shown, class_="strip" if kind == "row" else f"strip {kind}", style=style)
    return tag("div", tag("div", label, class_="label") if label else None, row, class_="labelled")
