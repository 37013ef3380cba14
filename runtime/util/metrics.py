"""Metrics of a program's own, as Ray's `ray.util.metrics`, for Prometheus: `init(metrics_port=…)` serves them.

Counters and histograms of all processes are summed up; a gauge is shown for each process, with the tag `pid`. In the
text a counter's name ends in "_total", as Prometheus has it, and Ray.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..core.arguments import as_number
from ..core.engine import current_engine
from ..core.reports.prometheus import render
from ..exceptions import InputError, InputTypeError, nearest
from ..state.asking import ask

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Metric:
    """What the three kinds have in common.

    Args:
        name: letters, digits and underscores; "shoal_…" is taken.
        description: one sentence about it.
        tag_keys: names of its tags.

    Raises:
        InputError: a bad name or tag, or the metric exists with another kind or other tags.
    """

    _kind = ""

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        self._setup(name, description, tag_keys, ())

    def _setup(self, name: str, description: str, tag_keys: Sequence[str] | None, boundaries: Sequence[float]) -> None:
        if isinstance(tag_keys, str):
            raise InputTypeError(f"metric {name!r}: tag_keys={tag_keys!r}: want a tuple of names: ({tag_keys!r},)")
        for what in (name, *(tag_keys or ())):
            if not isinstance(what, str) or not _NAME.fullmatch(what) or what.startswith(("shoal_", "__")):
                raise InputError(
                    f"metric {name!r}: {what!r} is no name for a metric or tag: want letters, digits and underscores, "
                    "not beginning with a digit, 'shoal_' or '__'"
                )
        if {"pid", "le"} & set(tag_keys or ()):
            raise InputError(f"metric {name!r}: the tags 'pid' and 'le' are taken. Choose another name")
        self._name, self._description, self._boundaries = name, description, tuple(map(float, boundaries))
        self._tag_keys = tuple(tag_keys or ())
        self._default_tags: dict[str, str] = {}

    def set_default_tags(self, default_tags: Mapping[str, str]) -> Metric:
        """Set the tags that are used where a call gives none; return the metric."""
        self._check_tags(default_tags)
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, object]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _check_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                known = nearest(key, self._tag_keys) or "It has none: pass tag_keys=(…) when you make it"
                raise InputError(f"metric {self._name!r} has no tag {key!r}. {known}")
            if not isinstance(value, str):
                raise InputTypeError(f"metric {self._name!r}: tag {key}={value!r}: want a str")

    def _values_of(self, tags: Mapping[str, str] | None) -> tuple[str, ...]:
        """Declare the metric here, whichever process this is, and return the values of its tags."""
        given = self._default_tags | dict(tags or {})
        self._check_tags(given)
        missing = [key for key in self._tag_keys if key not in given]
        if missing:
            raise InputError(f"metric {self._name!r}: no value for the tag {missing[0]!r}. Pass tags={{…}}")
        table = current_engine().metrics
        table.declare(self._name, self._kind, self._description, self._tag_keys, self._boundaries)
        return tuple(given[key] for key in self._tag_keys)


class Counter(Metric):
    """A number that only grows."""

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add to it; InputError if `value` is not more than zero."""
        if not value > 0:
            raise InputError(f"counter {self._name!r}: inc({value!r}): a counter only grows. Use a Gauge")
        current_engine().metrics.add(self._name, self._values_of(tags), float(value))


class Gauge(Metric):
    """A number that goes up and down; each process has its own."""

    _kind = "gauge"

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Set it."""
        current_engine().metrics.set(self._name, self._values_of(tags), float(value))


class Histogram(Metric):
    """Counts of observations up to each boundary, their number and sum.

    Args:
        name, description, tag_keys: as for every metric.
        boundaries: upper bounds of the buckets, growing, more than zero.
    """

    _kind = "histogram"

    def __init__(
        self, name: str, description: str = "", *, boundaries: Sequence[float], tag_keys: Sequence[str] | None = None
    ) -> None:
        only = as_number(boundaries)
        limits = list(boundaries if only is None else [only])
        if not limits or limits[0] <= 0 or any(a >= b for a, b in pairwise(limits)):
            raise InputError(f"histogram {name!r}: boundaries={boundaries!r}: want growing numbers, more than zero")
        self._setup(name, description, tag_keys, limits)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Add an observation."""
        current_engine().metrics.observe(self._name, self._values_of(tags), float(value))


def scrape(*, address: str | None = None) -> str:
    """Return all metrics now, the runtime's and the program's, in Prometheus' text format; as the endpoint serves them.

    Args:
        address: name of the runtime's session; default: that of this process, or else the newest on this machine.
    """
    return render(ask(["metrics"], 1, address))
