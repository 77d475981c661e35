import re

from wm.report.page import Html, joined, missing, page, table, tag

HOSTILE = "<script>alert('a')</script>\"&"


def test_text_is_escaped_everywhere():
    for shown in (
        tag("p", HOSTILE),
        tag("p", [HOSTILE, (HOSTILE,)]),
        tag("p", "x", title=HOSTILE),
        joined([HOSTILE]),
        missing(HOSTILE),
        missing(f"run `{HOSTILE}`"),
        table((HOSTILE,), [(HOSTILE,)]),
        page(HOSTILE, HOSTILE),
    ):
        assert "<script" not in shown
        assert "alert('a')" not in shown
        assert shown.count("&lt;script&gt;") >= 1


def test_markup_is_unchanged_and_none_is_left_out():
    assert tag("p", Html("<b>x</b>"), None, 0) == "<p><b>x</b>0</p>"
    assert tag("line", x1=3, class_="a", stroke_width=None) == '<line x1="3" class="a"/>'
    assert missing("no V: run `jobs.x`") == '<p class="missing">No V: run <code>jobs.x</code>.</p>'


def test_a_page_has_no_links_and_no_scripts():
    shown = page("title", tag("p", "text"))
    assert shown.startswith("<!doctype html>")
    assert "default-src 'none'" in shown.replace("&#x27;", "'")
    assert "<script" not in shown
    assert not re.search(r"https?:|url\(|@import", shown)
