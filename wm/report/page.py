"""HTML building blocks for self-contained pages. Text is escaped unless it is of type Html.

Pages have no scripts and no links. Their content security policy forbids both, so a hostile name in a run has no
effect even if it got through the escaping.
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
    """Markup. `tag` and `joined` escape every other string."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. `class_` sets class, other underscores become hyphens, and attributes that are None are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in EMPTY and not children:
        return Html(f"<{name}{written}>" if name in ("img", "meta", "source") else f"<{name}{written}/>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Html:
    """Concatenate markup and text, which is escaped; sequences are flattened and None is skipped."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, (list, tuple)):
            parts.append(joined(child))
        elif child is not None:
            parts.append(html.escape(str(child)))
    return Html("".join(parts))


def with_code(text: str) -> Html:
    """Text with parts in `backticks` as code."""
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
    """Parts next to each other where there is room."""
    return tag("div", *content, class_="columns")


def figure(title: Any, note: Any, *content: Any) -> Html:
    caption = tag("figcaption", tag("b", title), " ", tag("span", note) if note else None)
    return tag("figure", caption, *content)


def missing(text: str) -> Html:
    """A note in place of a part that can't be shown, with the command that produces it in `backticks`."""
    return tag("p", with_code(text[:1].upper() + text[1:] + "."), class_="missing")


def table(heads: Sequence[Any], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = (), strong: int = -1) -> Html:
    """A table with the columns `numbers` aligned right and the row `strong` in bold."""
    right = set(numbers)

    def cells(kind: str, row: Sequence[Any]) -> list[Html]:
        return [tag(kind, cell, class_="number" if at in right else None) for at, cell in enumerate(row)]

    body = [tag("tr", cells("td", row), class_="strong" if at == strong else None) for at, row in enumerate(rows)]
    head = tag("thead", tag("tr", cells("th", heads))) if any(heads) else None
    if len(right) < 2:
        return tag("table", head, tag("tbody", body))
    figures = tag("table", head, tag("tbody", body), class_="figures")
    return tag("div", figures, class_="scrolls")  # and not the whole page on a phone


def facts(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """Names with their values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs], class_="facts")


def commands(lines: Iterable[str]) -> Html:
    return tag("pre", tag("code", "\n".join(lines)))


def folded(title: str, *content: Any) -> Html:
    """Content that opens on a click."""
    return tag("details", tag("summary", title), *content)


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image(data: bytes, kind: str, description: str, width: int, height: int, **attributes: Any) -> Html:
    return tag("img", src=data_uri(data, kind), alt=description, width=width, height=height, **attributes)
