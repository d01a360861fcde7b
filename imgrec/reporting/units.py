"""Quantities as people read them."""

from collections.abc import Callable, Sequence

Number = int | float
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def duration(seconds: Number | None) -> str:
    """Seconds as "48 s", "2 min 15 s", "3 h 5 min"; "–" where not known."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def quantity(value: Number | None, unit: str) -> str:
    """A large number with a prefix: "9.38 TFLOP"; "–" where not known."""
    if value is None:
        return "–"
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def percent(share: Number | None, interval: Sequence[Number] | None = None, digits: int = 2) -> str:
    """A share as "91.47 % [90.90, 92.00]"; "–" where not known."""
    return _with_interval(share, interval, lambda value: f"{100 * value:.{digits}f}", " %")


def points(share: Number | None, interval: Sequence[Number] | None = None) -> str:
    """A difference of shares in percentage points: "+1.25 [+0.30, +2.20]"; "–" where not known."""
    return _with_interval(share, interval, lambda value: f"{100 * value:+.2f}")


def number(value: Number | None, interval: Sequence[Number] | None = None, digits: int = 3) -> str:
    """A number as "0.214 [0.200, 0.230]"; "–" where not known."""
    return _with_interval(value, interval, lambda value: f"{value:.{digits}f}")


def p_value(p: Number | None) -> str:
    """A p-value with two digits, and never as 0."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _with_interval(
    value: Number | None,
    interval: Sequence[Number] | None,
    write: Callable[[Number], str],
    unit: str = "",
) -> str:
    if value is None:
        return "–"
    text = write(value) + unit
    if interval is not None:
        low, high = interval
        text += f" [{write(low)}, {write(high)}]"
    return text
