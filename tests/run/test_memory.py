"""Sizes in words, and peaks that begin anew."""

import sys

import pytest
import torch

from scoreplug.run.memory import give_back, in_words, now_on, parse_size, peak_on, reset_peak, unmeasurable

CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MB", 512e6), ("2 GB", 2e9), ("2GiB", 2**31), ("1.5gb", 1.5e9), ("100B", 100), ("1 TB", 1e12), ("3kib", 3072)],
)
def test_a_size_is_a_number_and_a_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "2", "GB", "-2GB", "2 XB", "1e9B", "2GB ram", "nan GB", 2, None, "9" * 50 + "B"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"a size is a number and a unit, as in 512MB, 2GB or 1\.5GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "words"), [(999, "999 B"), (1.5e3, "1.5 kB"), (123.4e6, "123 MB"), (999.9e6, "1 GB"), (2e12, "2 TB")]
)
def test_bytes_are_said_with_three_digits(size, words):
    assert in_words(size) == words


@linux
def test_a_peak_is_that_since_the_last_reset():
    """100 MB, of which the kernel's counters may be off by a few pages per processor."""
    assert unmeasurable(CPU) is None
    give_back(CPU)
    reset_peak()
    before = peak_on(CPU)
    torch.ones(25_000_000)
    high = peak_on(CPU)
    give_back(CPU)
    reset_peak()

    assert 95e6 < high - before < 110e6
    assert peak_on(CPU) < high - 90e6


@linux
def test_what_is_held_now_follows_a_tensor():
    give_back(CPU)
    before = now_on(CPU)
    held = torch.ones(25_000_000)

    assert 95e6 < now_on(CPU) - before < 110e6
    assert len(held) == 25_000_000


def test_where_memory_cannot_be_measured_the_reason_is_given():
    assert unmeasurable(torch.device("mps")) == "torch does not say how much memory a run takes on 'mps'"
