"""How numbers are said."""


def number(value: float) -> str:
    """At least four digits, and never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"


def size(bytes: float) -> str:
    """1.2 GB, as a person would say it."""
    for unit in ("B", "KB", "MB"):
        if bytes < 1000:
            return f"{bytes:.3g} {unit}"
        bytes /= 1000
    return f"{bytes:,.0f} GB" if bytes >= 1000 else f"{bytes:.3g} GB"
