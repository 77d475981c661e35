"""Numbers, sizes and durations as text."""


def format_number(value: float) -> str:
    """At least four digits, never in scientific notation."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"


def format_bytes(count: float) -> str:
    """1.2 GB"""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.0f} GB" if count >= 1000 else f"{count:.3g} GB"


def format_duration(seconds: float) -> str:
    """0:42, 4:38, 3:05:12, 2.1 days"""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
