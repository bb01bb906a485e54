"""Multiple tests: Holm's correction of p-values."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: a test is significant at `alpha` if its adjusted p-value is at most `alpha`.

    With m p-values in ascending order, `adjusted[i] = max over j <= i of min(1, (m - j) * p[j])`, j from 0. The probability of one
    or more false rejections among all m is then at most `alpha`, for any dependence between the tests.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979).

    Args:
        p_values: the p-value of each test of the family, in [0, 1].

    Returns:
        The adjusted p-value of each test, in the order given; never below its raw p-value.

    Raises:
        ValueError: not a p-value.
    """
    for p_value in p_values:
        if not 0.0 <= p_value <= 1.0:
            raise ValueError(f"p-values must be in [0, 1], not {p_value}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
