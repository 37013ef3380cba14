"""Numbers of any library, and the one place that reads time limits."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from shoal.runtime.core.arguments import as_timeout
from shoal.runtime.core.futures import ValueFuture
from shoal.runtime.exceptions import InputError

NO_LIMIT = [
    None,
    math.inf,
    np.inf,
    np.float32("inf"),
    Decimal("Infinity"),
    10**400,
    10**30,
    1e300,
    Fraction(10**400),
    Decimal("1e400"),
    np.float64(1e300),
    np.iinfo(np.int64).max,
    np.uint64(2**64 - 1),
    4e9,
]
LIMITS = [0, 0.5, 3, True + 1, np.int8(3), np.float16(0.5), Fraction(1, 2), Decimal("0.5"), 90 * 86_400, -0.0]
BAD = [-1, -0.1, math.nan, -math.inf, np.nan, Decimal("NaN"), Decimal("sNaN"), Fraction(-(10**400)), "1", True, [1]]


@pytest.mark.parametrize("value", NO_LIMIT, ids=repr)
def test_what_nobody_lives_to_see_is_no_limit(value):
    assert as_timeout("it", value) is None


@pytest.mark.parametrize("value", LIMITS, ids=repr)
def test_limits_are_pythons_own_numbers(value):
    seconds = as_timeout("it", value)
    assert type(seconds) in {int, float}
    assert seconds == float(value)


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_bad_limits_are_refused(value):
    with pytest.raises(InputError, match=r"it: timeout=.*want seconds, 0 or more"):
        as_timeout("it", value)


@pytest.mark.parametrize("value", [math.inf, 10**30, Decimal(1), np.float32(2), Fraction(1, 3), -1])
def test_futures_read_them_too(value):
    future = ValueFuture()
    future.set_result(5)
    assert future.result(value) == 5
    assert future.exception(timeout=value) is None


def test_a_future_refuses_what_is_no_time():
    with pytest.raises(InputError):
        ValueFuture().result(math.nan)
