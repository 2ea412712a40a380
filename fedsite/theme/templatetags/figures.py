"""Numbers as a page shows them: never more digits than mean something, units said once in the heading."""

from __future__ import annotations

from django import template

from training.figures import figure

register = template.Library()

NOTHING = "–"
MICRO = 1_000_000


@register.filter
def tokens(microtokens: int | None) -> str:
    """Micro-tokens as tokens with three decimals: 92418000 is 92.418."""
    return NOTHING if microtokens is None else f"{microtokens / MICRO:z,.3f}".replace("-", "−")


@register.filter
def exact_tokens(microtokens: int | None) -> str:
    """Every micro-token, by whole numbers only."""
    if microtokens is None:
        return NOTHING
    whole, rest = divmod(abs(microtokens), MICRO)
    return f"{'−' if microtokens < 0 else ''}{whole:,}.{rest:06d}"


@register.filter
def decimals(value: float | None, places: int = 4) -> str:
    return NOTHING if value is None else figure(value, places).replace("-", "−")


@register.filter
def signed(value: float | None, places: int = 4) -> str:
    """With its sign, as a contribution wants it; zeros have none."""
    told = decimals(value, places)
    return f"+{told}" if value and value > 0 and told.strip("0.") else told


@register.filter
def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


@register.filter
def percent_short(share: float | None) -> str:
    """A share as a whole number of percent, where a picture has little room; what would be 0 is told as less than 1."""
    if share is None:
        return NOTHING
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


@register.filter
def in_tokens(microtokens: int) -> float:
    """For a chart's axis alone."""
    return microtokens / MICRO


@register.filter
def thousands(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


@register.filter
def seconds(value: float | None) -> str:
    """A duration in its two largest units: 0.8 s, 41 s, 3 min 05 s, 2 h 10 min."""
    if value is None:
        return NOTHING
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


@register.filter
def short_hash(value: str) -> str:
    """The two ends of a hash, enough to tell one from another by eye."""
    return f"{value[:4]}…{value[-4:]}" if len(value) > 12 else value


@register.filter
def spaced(name: str) -> str:
    """A name of the configuration in plain words: free_rider is free rider."""
    return str(name).replace("_", " ")


@register.filter
def attribute(value: float | int | None) -> str:
    """A number as charts.js reads it; empty where there is none."""
    return "" if value is None else repr(value)


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: object) -> str:
    """The page's own query string with some values changed; a value of None is left out."""
    values = context["request"].GET.copy()
    for name, value in changes.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = str(value)
    return f"?{values.urlencode()}" if values else "?"
