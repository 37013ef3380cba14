import pytest

from shoal.rl import rate_at
from shoal.rl.schedules import rate_start
from shoal.runtime import InputError


@pytest.mark.parametrize(
    ("rate", "start", "half"),
    [(0.1, 0.1, 0.1), ("0.1", 0.1, 0.1), ("lin_0.1", 0.1, 0.05), (lambda remaining: remaining**2, 1.0, 0.25)],
)
def test_value_at_the_start_and_half_way(rate, start, half):
    assert rate_at(rate, 1.0) == pytest.approx(start)
    assert rate_at(rate, 0.5) == pytest.approx(half)


def test_a_bad_rate_is_named():
    with pytest.raises(InputError, match=r"learning_rate is 'cos_0.1', but must be"):
        rate_start("learning_rate", "cos_0.1")
