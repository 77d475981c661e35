"""How numbers are said."""


def number(value: float) -> str:
    """At least four digits, and never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
