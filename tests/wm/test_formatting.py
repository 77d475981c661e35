import pytest

from wm.formatting import format_bytes, format_duration, format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.1235"), (12, "12"), (906.25, "906.2"), (1234.5, "1,234"), (2_500_000, "2,500,000")],
)
def test_numbers(value: float, text: str) -> None:
    assert format_number(value) == text
    assert format_number(-value) == (f"-{text}" if value else text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.23 KB"), (45_600_000, "45.6 MB"), (1.2e9, "1.2 GB"), (2.5e12, "2,500 GB")],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (278, "4:38"), (3599.7, "1:00:00"), (11_112, "3:05:12"), (181_440, "2.1 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
