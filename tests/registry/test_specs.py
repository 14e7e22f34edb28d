"""Specs refuse what would only fail later, in a user's hands."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreplug import ConditionerSpec, SamplerSpec
from scoreplug.registry.specs import KINDS, SPECS

WORD = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)


def spec(**changes):
    return SamplerSpec(**{"name": "em", "summary": "one line", "factory": "package.module:Class"} | changes)


@given(st.lists(WORD, min_size=1, max_size=4).map("-".join))
def test_words_joined_by_hyphens_are_names(name):
    assert spec(name=name).name == name


@given(st.text(max_size=12).filter(lambda text: not set(text) <= set(string.ascii_lowercase + string.digits + "-")))
def test_a_name_has_no_other_characters(name):
    with pytest.raises(ValueError, match="lower case with hyphens"):
        spec(name=name)


@pytest.mark.parametrize("name", ["", "-em", "em-", "e--m", "em\n", None, 3])
def test_a_name_begins_and_ends_with_a_word(name):
    with pytest.raises(ValueError, match="lower case with hyphens"):
        spec(name=name)


@pytest.mark.parametrize("factory", ["module.Class", "module:", ":Class", "module:Class.part", "mod ule:Class", None])
def test_a_factory_is_a_module_and_a_class(factory):
    with pytest.raises(ValueError, match=r"factory is 'package\.module:Class'"):
        spec(factory=factory)


@pytest.mark.parametrize("summary", ["", "  ", "two\nlines", None])
def test_a_summary_is_one_line(summary):
    with pytest.raises(ValueError, match="summary is one line"):
        spec(summary=summary)


@pytest.mark.parametrize("field", ["aliases", "references", "needs"])
def test_one_string_is_not_a_tuple_of_its_letters(field):
    with pytest.raises(ValueError, match="a tuple of strings"):
        spec(**{field: "linear"})


def test_aliases_are_names():
    with pytest.raises(ValueError, match="got 'Euler Maruyama'"):
        spec(aliases=["Euler Maruyama"])


def test_lists_become_tuples_so_that_specs_are_hashable():
    assert hash(spec(aliases=["a"])) == hash(spec(aliases=("a",)))


def test_every_kind_has_one_spec():
    assert KINDS == ("model", "sde", "operator", "conditioner", "sampler", "problem")
    assert SPECS["conditioner"] is ConditionerSpec
