"""Plugins load in isolation: each failure is kept with its phase, and nothing else suffers."""

from __future__ import annotations

import pytest

from scoreplug.registry import PluginError, Registry, Selection
from scoreplug.registry._loader import _plainly_met

GOOD = """
from scoreplug import SamplerSpec, hookimpl
@hookimpl
def scoreplug_components():
    return [SamplerSpec(name="fake-good", summary="works", factory="fake_good:Thing")]
"""

HEAD = "from scoreplug import SamplerSpec, hookimpl\n@hookimpl\n"
SPEC = 'SamplerSpec(name="x", summary="s", factory="m:C")'

BROKEN = {
    "import error": ("import", "import no_such_module", "No module named 'no_such_module'"),
    "syntax error": ("import", "def broken(:", "SyntaxError"),
    "exit at import": ("import", "raise SystemExit(3)", "SystemExit: 3"),
    "base exception at import": (
        "import",
        "class Skipped(BaseException): pass\nraise Skipped('later')",
        "Skipped: later",
    ),
    "an exception without a text": (
        "import",
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
        "Mute: (its text cannot be printed)",
    ),
    "references that are no text": (
        "components",
        HEAD + f"def scoreplug_components(): yield {SPEC.replace(')', ', references=[2209.14687])')}",
        "a tuple of strings is needed (got (2209.14687,))",
    ),
    "a spec of its own making": (
        "components",
        "from scoreplug import ComponentSpec, hookimpl\nclass Mine(ComponentSpec): kind = 'sampler'\n"
        "@hookimpl\ndef scoreplug_components(): yield Mine(name='x', summary='s', factory='m:C')",
        "a component is declared by one of",
    ),
    "wrong signature": ("register", HEAD + "def scoreplug_components(wanted): return []", "wanted"),
    "misspelt hook": ("hooks", HEAD + "def scoreplug_component(): return []", "did you mean 'scoreplug_components'?"),
    "missing marker": ("hooks", "def scoreplug_components(): return []", "lacks the decorator @hookimpl"),
    "returns nothing": ("components", HEAD + "def scoreplug_components(): pass", "got None"),
    "raises": ("components", HEAD + "def scoreplug_components(): yield 1 / 0", "division by zero"),
    "not a spec": ("components", HEAD + "def scoreplug_components(): yield 'daps'", "got 'daps'"),
    "bad name": ("components", HEAD + f"def scoreplug_components(): yield {SPEC.replace('x', 'X Y')}", "got 'X Y'"),
    "bad factory": (
        "components",
        HEAD + f"def scoreplug_components(): yield {SPEC.replace(':', '.')}",
        "got 'm.C'",
    ),
    "same name twice": ("components", HEAD + f"def scoreplug_components(): return [{SPEC}, {SPEC}]", "declared twice"),
}


def load(selection=None):
    return {plugin.name: plugin for plugin in Registry(selection or Selection()).plugins}


@pytest.mark.parametrize(("phase", "source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_kept_with_its_phase_and_the_others_load(site, phase, source, reason):
    site.install("fake-bad", {"fake_bad": source}, {"it": "fake_bad"})
    site.install("fake-good", {"fake_good": GOOD}, {"it": "fake_good"})
    plugins = load()

    assert (plugins["fake-bad"].state, plugins["fake-bad"].phase) == ("failed", phase)
    assert reason in plugins["fake-bad"].reason
    assert plugins["fake-bad"].reason.split(":")[0] in plugins["fake-bad"].traceback
    assert plugins["fake-bad"].components == ()
    assert plugins["fake-good"].state == plugins["scoreplug"].state == "ok"


def test_a_missing_module_is_an_import_failure(site):
    site.install("fake-bad", {}, {"it": "fake_nowhere.plugin"})

    assert load()["fake-bad"].phase == "import"


def test_ctrl_c_is_not_swallowed(site):
    """KeyboardInterrupt is the user's own, whatever code happens to run."""
    site.install("fake-bad", {"fake_interrupt": "raise KeyboardInterrupt"}, {"it": "fake_interrupt"})
    with pytest.raises(KeyboardInterrupt):
        load()


def test_a_failed_plugin_stays_out_of_the_plugin_manager(site):
    """Otherwise the hooks of a half registered plugin would run later on."""
    site.install("fake-bad", {"fake_bad": HEAD + "def scoreplug_components(): yield 1 / 0"}, {"it": "fake_bad"})
    registry = Registry(Selection())
    registry.list()

    assert not registry._manager.has_plugin("fake-bad")


def test_what_a_plugin_prints_goes_to_stderr(site, capsys):
    site.install("fake-good", {"fake_good": "print('hello')\n" + GOOD}, {"it": "fake_good"})
    load()
    out, err = capsys.readouterr()

    assert (out, err) == ("", "hello\n")


def test_an_optional_hook_of_a_later_scoreplug_is_no_error(site):
    source = GOOD + "\n@hookimpl(optionalhook=True)\ndef scoreplug_of_the_future(): pass\n"
    site.install("fake-good", {"fake_good": source}, {"it": "fake_good"})

    assert load()["fake-good"].state == "ok"


@pytest.mark.parametrize(
    ("requirement", "state"),
    [
        ("scoreplug>=99", "incompatible"),
        ("Scoreplug (<0.0.1)", "incompatible"),
        ("scoreplug>=0.1", "ok"),
        ("scoreplug", "ok"),
        ("scoreplug>=99 ; extra == 'next'", "ok"),
        ("scoreplug-daps>=99", "ok"),  # another distribution
    ],
)
def test_the_requirement_on_scoreplug_is_checked(site, requirement, state):
    site.install("fake-good", {"fake_good": GOOD}, {"it": "fake_good"}, requires=["numpy", requirement])

    assert load()["fake-good"].state == state


def test_an_incompatible_plugin_is_not_imported(site):
    source = "raise AssertionError('this code is for another scoreplug')"
    site.install("fake-bad", {"fake_bad": source}, {"it": "fake_bad"}, requires=["scoreplug>=99"])
    plugin = load()["fake-bad"]

    assert plugin.requirement.startswith("scoreplug>=99 (this is ")
    assert plugin.phase is None


def test_a_requirement_that_cannot_be_read_is_a_failure_of_the_plugin(site):
    site.install("fake-bad", {"fake_good": GOOD}, {"it": "fake_good"}, requires=["scoreplug >== 1"])

    assert (load()["fake-bad"].state, load()["fake-bad"].phase) == ("failed", "import")


def test_a_component_of_a_later_contract_makes_its_plugin_incompatible(site):
    site.install("fake-good", {"fake_good": GOOD.replace("summary", "api=2, summary")}, {"it": "fake_good"})

    assert load()["fake-good"].requirement == "plugin contract 2 (this scoreplug has 1)"


def test_a_distribution_is_named_once_and_its_entry_points_if_it_has_several(site):
    site.install("Fake_One", {"fake_good": GOOD}, {"it": "fake_good"})
    site.install("fake-two", {"fake_a": GOOD, "fake_b": GOOD}, {"b": "fake_b", "a": "fake_a"})
    names = [name for name in load() if name.startswith("fake")]

    assert names == ["fake-one", "fake-two:a", "fake-two:b"]


def test_slow_imports_of_a_plugin_are_noted(site):
    """`colorsys` stands in for torch, which the other tests have imported already."""
    from scoreplug.registry import _loader

    site.install("fake-good", {"fake_good": "import colorsys\n" + GOOD}, {"it": "fake_good"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_loader, "HEAVY", ("colorsys",))
        patch.delitem(__import__("sys").modules, "colorsys", raising=False)

        assert load()["fake-good"].heavy == ("colorsys",)


def test_strict_raises_at_the_first_that_does_not_load(site):
    site.install("fake-bad", {"fake_bad": "import no_such_module"}, {"it": "fake_bad"})
    with pytest.raises(
        PluginError, match=r"plugin 'fake-bad' did not load.*No module named 'no_such_module'"
    ) as caught:
        load(Selection(strict=True))

    assert caught.value.plugin == "fake-bad"


@pytest.mark.parametrize(
    ("record", "origin"),
    [
        (
            '{"url": "https://x.org/p.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}',
            ("https://x.org/p.git", "ab12", False),
        ),
        ('{"url": "file:///src/p", "dir_info": {"editable": true}}', ("file:///src/p", None, True)),
        (None, None),
        ("not json", None),
        ("[]", None),
    ],
)
def test_the_origin_is_what_the_installer_recorded(site, record, origin):
    site.install("fake-good", {"fake_good": GOOD}, {"it": "fake_good"}, direct_url=record)
    found = load()["fake-good"].origin()

    assert (found and (found.url, found.commit, found.editable)) == origin


def test_an_interrupt_by_the_user_is_no_failure_of_a_plugin(site):
    """Control-C while a slow plugin is imported ends the command, not only the plugin."""
    site.install("fake-slow", {"fake_slow": "raise KeyboardInterrupt"}, {"it": "fake_slow"})

    with pytest.raises(KeyboardInterrupt):
        load()


def test_the_origin_has_what_a_requirement_needs(site):
    record = '{"url": "https://x.org/p", "vcs_info": {"vcs": "hg", "commit_id": "ab"}, "subdirectory": "python"}'
    site.install("fake-good", {"fake_good": GOOD}, {"it": "fake_good"}, direct_url=record)
    origin = load()["fake-good"].origin()

    assert (origin.vcs, origin.subdirectory) == ("hg", "python")


@pytest.mark.parametrize("core", ["0.1.0", "0.1", "0.10.0", "1.0", "0.2.0rc1", "0.1.1.dev3+gabc"])
@pytest.mark.parametrize(
    "line",
    [
        *(
            "scoreplug>=0.1",
            "scoreplug >= 0.1.0",
            "scoreplug>=0.1.0.0",
            "Scoreplug>=0.2",
            "scoreplug>=0.9",
            "scoreplug>=1",
        ),
        *("scoreplug>=0.1,<0.2", "scoreplug>=0.1rc1", "scoreplug>=0.1.*", "scoreplug[x]>=9", "scoreplug"),
    ],
)
def test_the_quick_answer_is_that_of_packaging(line, core):
    """It may leave a question to packaging, and must never say yes where packaging says no."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        met = Requirement(line).specifier.contains(core, prereleases=True)
    except InvalidRequirement:
        met = False

    assert met or not _plainly_met(line, core)


@pytest.mark.parametrize(
    ("line", "core"), [("scoreplug>=0.1", "0.1.0"), ("Scoreplug >= 0.1.0", "0.10"), ("scoreplug>=0", "1")]
)
def test_what_nearly_every_plugin_asks_for_needs_no_packaging(line, core):
    assert _plainly_met(line, core)
