"""Reading the installed distributions without importlib.metadata."""

from __future__ import annotations

import importlib.metadata

import pytest

from scoreplug.registry._installed import canonical, entry_points, requirements


@pytest.mark.parametrize("group", ["scoreplug", "console_scripts", "pytest11", "no-such-group"])
def test_the_entry_points_are_those_that_importlib_metadata_finds(group):
    """The reader exists for speed alone, so on this very environment it must agree with the standard library."""
    expected = {
        (canonical(point.dist.name), point.dist.version, point.name, point.module, point.attr or "")
        for point in importlib.metadata.entry_points(group=group)
    }
    found = {(p.distribution, p.version, p.name, *_split(p.value)) for p in entry_points(group)}

    assert found == expected


def _split(value):
    module, _, attribute = value.partition(":")
    return module, attribute


def test_entry_points_come_in_the_order_of_distribution_and_name(site):
    site.install("zz-late", {}, {"b": "zz_m", "a": "zz_m"})
    site.install("AA-early", {}, {"c": "aa_m"})
    ours = [(p.distribution, p.name) for p in entry_points("scoreplug") if p.info.parent == site.path]

    assert ours == [("aa-early", "c"), ("zz-late", "a"), ("zz-late", "b")]


def test_of_two_copies_the_first_on_the_path_counts(site, tmp_path, monkeypatch):
    """As for imports: the shadowed copy's plugin is not what `import` would find."""
    site.install("twice", {}, {"old": "m"}, version="1.0")
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "twice-2.0.dist-info").mkdir()
    (newer / "twice-2.0.dist-info" / "entry_points.txt").write_text("[scoreplug]\nnew = m\n")
    monkeypatch.syspath_prepend(str(newer))
    found = [(p.version, p.name) for p in entry_points("scoreplug") if p.distribution == "twice"]

    assert found == [("2.0", "new")]


def test_a_malformed_file_of_one_distribution_harms_no_other(site):
    site.install("broken", {}, {})
    next(site.path.glob("broken*/entry_points.txt")).write_bytes(
        b"\xff\xfe[scoreplug\nno equals sign\n[scoreplug]\n\x00"
    )
    site.install("whole", {}, {"it": "m"})

    assert "whole" in [p.distribution for p in entry_points("scoreplug")]


def test_requirements_are_read_from_the_head_of_the_metadata_only(site):
    site.install("asking", {}, {"it": "m"}, requires=["scoreplug>=0.1", "numpy ; extra == 'x'"])
    (info,) = site.path.glob("asking*.dist-info")
    with (info / "METADATA").open("a") as file:
        file.write("\nRequires-Dist: not-a-requirement\n")

    assert requirements(info) == ["scoreplug>=0.1", "numpy ; extra == 'x'"]


@pytest.mark.parametrize(
    ("folder", "name", "version"),
    [
        ("scoreplug_daps-1.0.dist-info", "scoreplug-daps", "1.0"),
        ("Zope.Interface-5.0.dist-info", "zope-interface", "5.0"),
        ("daps.egg-info", "daps", None),
        ("daps-0.3-py3.11.egg-info", "daps", "0.3"),
        ("my-plugin-2.1.dist-info", "my-plugin", "2.1"),
    ],
)
def test_name_and_version_come_from_the_folder(site, folder, name, version):
    (site.path / folder).mkdir()
    (site.path / folder / "entry_points.txt").write_text("[scoreplug]\nit = m\n")
    found = [(p.distribution, p.version) for p in entry_points("scoreplug") if p.info.parent == site.path]

    assert found == [(name, version)]
