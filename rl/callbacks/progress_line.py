"""One line that says how far a training is, laid out by the width there is: the most important comes first."""

from __future__ import annotations

import math
from dataclasses import dataclass

_GAP = "  "
_NARROWEST_BAR, _WIDEST_BAR = 8, 24


def three_digits(value: float) -> str:
    """Return a number with three significant digits, in full above a thousand: 0.0412, 3.00, 475, -12,345."""
    if not math.isfinite(value) or abs(value) >= 1e9 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    # Rounded first: 999.7 is 1,000, and not 1e+03.
    value = float(f"{value:.3g}") if abs(value) < 1000 else value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def duration(seconds: float) -> str:
    """Return a duration in whole seconds: 0:07, 12:34, 1:02:03, or 3 d 4 h."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


@dataclass(frozen=True)
class Standing:
    """How far a training is."""

    name: str
    """What is trained on what."""
    timesteps: int
    total_timesteps: int
    elapsed: float
    """Seconds since it began."""
    speed: float | None = None
    """Environment steps per second; None in the first iteration."""
    mean_return: float | None = None
    """Mean return of the last episodes; None if none has ended."""
    evaluation: float | None = None
    """Mean return of the last evaluation; None if there was none."""
    loss: float | None = None
    """The last loss, of what is held out if anything is; None where episodes are played."""
    left: float | None = None
    """Seconds until its end; None in the first iteration."""


@dataclass(frozen=True)
class Part:
    """A piece of the line: what it is about, and its text."""

    name: str
    text: str


def _forms(now: Standing) -> dict[str, list[str]]:
    """Return the texts of each part, from long to short."""
    steps = f"{now.timesteps:,}/{now.total_timesteps:,}"
    share = f"{min(now.timesteps / max(now.total_timesteps, 1), 1):.0%}"
    forms = {"name": [now.name], "bar": [" " * _NARROWEST_BAR], "steps": [f"{steps} steps", steps, share]}
    if now.speed is None or now.left is None:
        # The time elapsed is all that moves by then.
        return forms | {"return": ["in the first iteration"], "left": [f"{duration(now.elapsed)} elapsed"]}
    if now.loss is not None and now.mean_return is None and now.evaluation is None:
        forms["return"] = [f"loss {three_digits(now.loss)}"]
    elif now.mean_return is None and now.evaluation is None:
        forms["return"] = ["no episode has ended yet", "no episode yet"]
    elif now.mean_return is not None:
        mean = three_digits(now.mean_return)
        forms["return"] = [f"mean return {mean}", f"return {mean}"]
    if now.evaluation is not None:
        forms["evaluation"] = [f"evaluation {three_digits(now.evaluation)}", f"eval {three_digits(now.evaluation)}"]
    return forms | {
        "speed": [f"{now.speed:,.0f} steps/s", f"{now.speed:,.0f}/s"],
        "elapsed": [f"{duration(now.elapsed)} elapsed"],
        "left": [f"{duration(now.left)} left"],
    }


#: What gets in first, where not all does: a part and which of its forms.
_WISHES = (
    *(("steps", -1), ("return", -1), ("left", -1), ("evaluation", -1), ("steps", 1), ("speed", -1), ("return", 0)),
    *(("bar", 0), ("steps", 0), ("speed", 0), ("name", 0), ("elapsed", 0)),
)
_PLACES = ("name", "bar", "steps", "return", "evaluation", "speed", "elapsed", "left")


def lay_out(now: Standing, width: int) -> list[Part]:
    """Return the parts that fit into `width` cells with two spaces between them, from left to right.

    A part is whole or absent; the bar is spaces for the caller to fill, and grows into what is left.
    """
    forms = _forms(now)
    chosen: dict[str, str] = {}

    def fits(name: str, text: str) -> bool:
        texts = {**chosen, name: text}.values()
        return sum(map(len, texts)) + len(_GAP) * (len(texts) - 1) <= width

    for name, form in _WISHES:
        if name in forms and fits(name, forms[name][form]):
            chosen[name] = forms[name][form]
    while "bar" in chosen and len(chosen["bar"]) < _WIDEST_BAR and fits("bar", chosen["bar"] + " "):
        chosen["bar"] += " "
    return [Part(name, chosen[name]) for name in _PLACES if name in chosen]


def in_full(now: Standing) -> str:
    """Return the line for a file or a pipe: every number in its long form, without name, bar and time elapsed."""
    forms = _forms(now)
    return _GAP.join(forms[name][0] for name in ("steps", "speed", "return", "evaluation", "left") if name in forms)
