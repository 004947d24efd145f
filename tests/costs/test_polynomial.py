"""Width polynomials against brute force in plain Python integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from automl_prune.costs import WidthPolynomial
from automl_prune.costs.polynomial import AxisLength, Term

GROUPS = ("a", "b", "c")


@st.composite
def terms(draw: st.DrawFn) -> tuple[Term, ...]:
    positions = st.dictionaries(st.sampled_from(GROUPS), st.integers(1, 49), max_size=3)
    axes = st.builds(AxisLength, st.integers(0, 64), positions)
    term = st.builds(Term, st.just("layer"), st.integers(0, 10**6), st.lists(axes, max_size=3).map(tuple))
    return tuple(draw(st.lists(term, max_size=6)))


widths = st.fixed_dictionaries({group: st.integers(1, 2048) for group in GROUPS})


def brute_force(terms: tuple[Term, ...], widths: dict[str, int]) -> int:
    total = 0
    for term in terms:
        value = term.coefficient
        for axis in term.axes:
            length = axis.constant
            for group, count in axis.positions.items():
                length += count * widths[group]
            value *= length
        total += value
    return total


@given(terms(), st.lists(widths, min_size=1, max_size=4))
def test_many_vectors_at_once(terms: tuple[Term, ...], many: list[dict[str, int]]) -> None:
    expected = [brute_force(terms, each) for each in many]
    assume(max(expected) < 2**62)
    found = WidthPolynomial(GROUPS, terms).evaluate_all(np.array([[each[g] for g in GROUPS] for each in many]))
    assert found.tolist() == expected


@given(terms(), widths)
def test_the_polynomial_is_the_sum_of_its_terms(terms: tuple[Term, ...], widths: dict[str, int]) -> None:
    expected = brute_force(terms, widths)
    assume(expected < 2**63)  # a million times what any network costs
    polynomial = WidthPolynomial(GROUPS, terms)
    assert polynomial.at(widths) == expected
    assert polynomial.evaluate([widths[group] for group in GROUPS]) == expected
    assert polynomial.evaluate(np.array([widths[group] for group in GROUPS])) == expected
    assert sum(term.at(widths) for term in terms) == expected
    assert isinstance(polynomial.at(widths), int)


@given(terms(), widths, st.sampled_from(GROUPS))
def test_the_polynomial_never_falls_when_a_width_grows(
    terms: tuple[Term, ...], widths: dict[str, int], group: str
) -> None:
    wider = {**widths, group: widths[group] + 1}
    assume(brute_force(terms, wider) < 2**63)
    polynomial = WidthPolynomial(GROUPS, terms)
    assert polynomial.at(wider) >= polynomial.at(widths)


def test_a_convolution_by_hand() -> None:
    # 3x3 on 8x8 positions, input of a concatenated with 4 protected channels, output b.
    term = Term("conv", 9 * 64, (AxisLength(4, {"a": 1}), AxisLength(0, {"b": 1})))
    assert WidthPolynomial(("a", "b"), (term,)).at({"a": 12, "b": 5}) == 9 * 64 * 16 * 5


def test_a_linear_layer_after_flatten_by_hand() -> None:
    term = Term("fc", 1, (AxisLength(0, {"a": 49}), AxisLength(10, {})))
    assert WidthPolynomial(("a",), (term,)).at({"a": 3}) == 49 * 3 * 10


def test_values_beyond_floating_point_are_exact() -> None:
    odd = 2**53 + 1  # not a float64
    assert WidthPolynomial(("a",), (Term("x", odd, ()),)).at({"a": 1}) == odd


def test_terms_without_axes_and_no_terms() -> None:
    assert WidthPolynomial(("a",), ()).at({"a": 3}) == 0
    assert WidthPolynomial(("a",), (Term("x", 5, ()), Term("y", 2, (AxisLength(1, {"a": 1}),)))).at({"a": 3}) == 13
    assert WidthPolynomial((), (Term("x", 5, ()),)).at({}) == 5


def test_every_group_must_be_named() -> None:
    with pytest.raises(KeyError, match="b"):
        WidthPolynomial(("a", "b"), ()).at({"a": 1})
