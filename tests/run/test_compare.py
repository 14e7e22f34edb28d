"""Two runs, value by value."""

import numpy as np
import pytest

from scoreplug.run.compare import circumstances, compare

X = np.arange(12.0).reshape(3, 2, 2)


def one(before, after):
    (found,) = compare({"x": before}, {"x": after})
    return found


def test_equal_arrays_do_not_differ():
    found = one(np.array([1.0, np.nan, -0.0]), np.array([1.0, np.nan, -0.0]))

    assert (found.values, found.differing, found.first, found.within(0)) == (3, 0, None, True)


def test_a_difference_is_counted_measured_and_placed():
    other = X.copy()
    other[1, 0, 1] += 0.11
    other[2] -= 0.022

    found = one(X, other)

    assert (found.differing, found.first) == (5, (1, 0, 1))
    assert found.largest == pytest.approx(0.01)  # 0.11 of 11
    assert not found.within(0.009)
    assert found.within(0.011)


def test_the_sign_of_zero_is_a_difference_of_bits_and_of_nothing_else():
    found = one(np.array([0.0]), np.array([-0.0]))

    assert (found.differing, found.largest) == (1, 0.0)


@pytest.mark.parametrize("other", [np.nan, np.inf])
def test_what_is_not_finite_any_more_is_beyond_any_tolerance(other):
    assert not one(np.array([1.0, 2.0]), np.array([1.0, other])).within(1e300)


def test_another_shape_or_dtype_is_no_match():
    assert one(X, X[:2]).note == "float64 (3, 2, 2) before, float64 (2, 2, 2) now"
    assert not one(X, X.astype(np.float32)).within(1)


def test_an_array_that_only_one_run_has_is_told():
    notes = {found.name: found.note for found in compare({"a": X, "b": X}, {"b": X, "c": X})}

    assert notes == {"a": "only before", "b": "", "c": "only now"}


def test_what_else_differs_is_named_and_times_are_not():
    before = {
        "started": "then",
        "threads": 1,
        "packages": {"torch": "2.13.0"},
        "plugins": [{"name": "p", "version": "1", "commit": "abc"}],
        "sha256": {"x.npy": "0" * 64},
    }
    after = {
        "started": "now",
        "threads": 2,
        "packages": {"torch": "2.14.0"},
        "plugins": [{"name": "p", "version": "1", "commit": "abd"}],
        "sha256": {"x.npy": "1" * 64},
    }

    assert list(circumstances(before, after)) == [
        "package torch: 2.13.0 before, 2.14.0 now",
        "plugin p: 1 abc before, 1 abd now",
        "file 'x.npy': 000000000000... before, 111111111111... now",
        "threads: 1 before, 2 now",
    ]
    assert list(circumstances(before, before)) == []
