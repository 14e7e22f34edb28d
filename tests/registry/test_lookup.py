"""From names to components: collisions, aliases, full ids, near misses."""

from __future__ import annotations

import pickle

import pytest

from scoreplug import SamplerSpec
from scoreplug import registry as package
from scoreplug.registry import (
    AmbiguousComponentError,
    Plugin,
    PluginError,
    Registry,
    Selection,
    UnknownComponentError,
    UnknownKindError,
)


@pytest.fixture
def registry():
    return Registry(Selection())


def test_a_builtin_keeps_its_short_name(site, registry):
    site.install_samplers("aa-first", "name='em', summary='theirs'", module="fake_em")
    theirs = registry.find("sampler", "aa-first:em")

    assert registry.spec("sampler", "em").factory.startswith("scoreplug_builtin.")
    assert (theirs.state, theirs.name, theirs.spec.summary) == ("shadowed", "aa-first:em", "theirs")


def test_two_third_parties_make_a_name_ambiguous_and_full_ids_work(site, registry):
    site.install_samplers("fake-a", "name='same', summary='of a'", module="fake_a")
    site.install_samplers("fake-b", "name='same', summary='of b'", module="fake_b")
    with pytest.raises(AmbiguousComponentError, match="'fake-a:same' or 'fake-b:same'") as caught:
        registry.spec("sampler", "same")

    assert caught.value.ids == ("fake-a:same", "fake-b:same")
    assert registry.spec("sampler", "fake-b:same").summary == "of b"
    assert [c.state for c in registry.components("sampler") if c.spec.name == "same"] == ["ambiguous"] * 2


def test_one_name_in_two_kinds_is_no_collision(site, registry):
    site.install_samplers("fake-a", "name='dps', summary='a sampler'", module="fake_a")

    assert registry.spec("sampler", "dps").summary == "a sampler"
    assert registry.spec("conditioner", "dps").kind == "conditioner"
    assert [c.spec.kind for c in registry.search("dps")] == ["conditioner", "sampler"]


def test_every_builtin_answers_to_its_full_id(registry):
    for component in registry.components():
        assert registry.find(component.spec.kind, component.id) is component


def test_an_alias_leads_to_its_component_but_never_beats_a_name(site, registry):
    site.install_samplers("fake-a", "name='other', summary='s', aliases=('short', 'target', 'em')", module="fake_a")
    site.install_samplers("fake-b", "name='target', summary='s'", module="fake_b")

    assert registry.spec("sampler", "short").name == "other"
    assert registry.spec("sampler", "target").name == "target"
    assert registry.spec("sampler", "em").name == "em"


def test_an_alias_of_two_third_parties_is_ambiguous(site, registry):
    site.install_samplers("fake-a", "name='one', summary='s', aliases=('short',)", module="fake_a")
    site.install_samplers("fake-b", "name='two', summary='s', aliases=('short',)", module="fake_b")
    with pytest.raises(AmbiguousComponentError, match="'fake-a:one' or 'fake-b:two'"):
        registry.spec("sampler", "short")


def test_near_misses_are_suggested_from_names_and_aliases(site, registry):
    site.install_samplers("fake-a", "name='other', summary='s', aliases=('heun-second',)", module="fake_a")
    with pytest.raises(UnknownComponentError, match="did you mean 'ancestral'") as name:
        registry.spec("sampler", "ancestrl")
    with pytest.raises(UnknownComponentError, match="did you mean 'heun-second'"):
        registry.spec("sampler", "heun-secnd")

    assert name.value.suggestions[0] == "ancestral"


def test_without_a_near_miss_the_known_names_are_listed(registry):
    with pytest.raises(UnknownComponentError, match=r"known are .*dpm-solver, pc"):
        registry.spec("sampler", "qqqqqq")


def test_the_other_kind_of_a_name_is_named(registry):
    with pytest.raises(UnknownComponentError, match="'dps' is the name of a conditioner") as caught:
        registry.spec("sampler", "dps")

    assert caught.value.other_kinds == ("conditioner",)


def test_failed_plugins_are_mentioned_with_an_unknown_name(site, registry):
    """The name may well be theirs."""
    site.install("fake-bad", {"fake_bad": "1 / 0"}, {"it": "fake_bad"})
    with pytest.raises(UnknownComponentError, match="1 plugin failed to load; see `scoreplug plugins`"):
        registry.spec("sampler", "qqqqqq")


def test_without_the_builtin_plugin_the_cause_is_named(registry):
    registry.plugins = ()  # as in a source tree that nobody installed
    with pytest.raises(UnknownComponentError, match="scoreplug is not installed in this environment"):
        registry.spec("sampler", "em")


@pytest.mark.parametrize("question", ["list", "components"])
def test_an_unknown_kind_is_refused(registry, question):
    with pytest.raises(UnknownKindError, match="unknown kind 'samplers'; did you mean 'sampler'"):
        getattr(registry, question)("samplers")


def test_list_has_what_its_own_names_lead_to(site, registry):
    site.install_samplers("aa-first", "name='em', summary='theirs'", "name='own', summary='s'", module="fake_em")
    listed = registry.list("sampler")

    assert [registry.spec("sampler", spec.name) for spec in listed] == list(listed)
    assert [spec.name for spec in listed][:1] == ["em"]  # the built-in ones first
    assert "own" in [spec.name for spec in listed]
    assert set(registry.list()) >= set(listed)


@pytest.mark.parametrize(
    "error",
    [
        UnknownKindError("a", ("b",), ("c",)),
        UnknownComponentError("sampler", "x", ("em",), ("em",), ("model",), ("note",)),
        AmbiguousComponentError("sampler", "x", ("a:x", "b:x")),
        PluginError("p", "did not load", "sampler 'x'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_back_from_a_worker(error):
    copy = pickle.loads(pickle.dumps(error))

    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_the_functions_of_the_package_ask_the_registry_in_use(site):
    site.install_samplers("fake-a", "name='mine', summary='s'", module="fake_a")
    mine = Registry(Selection())
    package.use(mine)
    try:
        assert package.default() is mine
        assert package.plugins() is mine.plugins
        assert package.list("sampler") == mine.list("sampler")
        assert package.spec("sampler", "mine") is mine.spec("sampler", "mine")
        assert package.find("sampler", "mine").id == "fake-a:mine"
        assert type(package.get_sampler("mine")).__name__ == "Thing"
    finally:
        package.use(None)

    assert package.default() is not mine


def test_plugins_load_at_the_first_question(site):
    site.install("fake-bad", {"fake_bad": "1 / 0"}, {"it": "fake_bad"})
    registry = Registry(Selection(strict=True))

    assert not registry.loaded
    with pytest.raises(PluginError, match="fake-bad"):
        registry.list()


def test_an_alias_of_a_builtin_beats_a_third_party_s(registry):
    def sampler(name):
        return SamplerSpec(name=name, summary="s", factory="m:C", aliases=("short",))

    registry.plugins = (
        Plugin(name="fake-a", value="m", components=(sampler("theirs"),)),
        Plugin(name="scoreplug", value="m", components=(sampler("built-in"),)),
    )

    assert registry.spec("sampler", "short").name == "built-in"
