"""Docstrings as the site shows them: nothing that is said in plain text is lost or gets another meaning."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/_ext"))
from plain_text import blocks, escape, to_rest

sys.path.pop(0)

DOC = """A method.

    x0' = x0 + |r|,    r = y - A x0
      (a second line)

Prose with |r|, x_ and a * b, and `code_`.

* one item, and a formula:

      c = s^2

  where it goes on.

References:
    Song, Ermon: A title. ICLR 2021,
    arXiv:2011.13456.
    Kawar: Another. The authors say so.
    Their code says more.
"""


def test_indented_lines_are_formulas_and_stay_as_they_are():
    formulas = [text for kind, text in blocks(DOC) if kind == "formula"]

    assert formulas == ["    x0' = x0 + |r|,    r = y - A x0\n      (a second line)", "      c = s^2"]


def test_a_reference_is_one_entry_however_it_is_wrapped():
    entries = [text for kind, text in blocks(DOC) if kind == "entry"]

    assert entries == [
        "Song, Ermon: A title. ICLR 2021, arXiv:2011.13456.",
        "Kawar: Another. The authors say so. Their code says more.",
    ]


@pytest.mark.parametrize(
    ("plain", "rest"),
    [
        ("|r| and x_", r"\|r\| and x\_"),
        ("a * b", r"a \* b"),
        ("`x_0` is code", "\\ ``x_0``\\  is code"),
        ("arXiv:2011.13456, eq. 7", "\\ `arXiv:2011.13456 <https://arxiv.org/abs/2011.13456>`__\\ , eq. 7"),
        ("doi:10.1000/182.", "\\ `doi:10.1000/182 <https://doi.org/10.1000/182>`__\\ ."),
    ],
)
def test_signs_lose_their_meaning_outside_code(plain, rest):
    assert escape(plain) == rest


def test_a_list_stays_a_list():
    assert "* one item, and a formula:" in to_rest(DOC)
    assert "where it goes on." in to_rest(DOC)
