"""The site builds without a warning, leads nowhere that is not there, and asks no other site for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock  # torch brings it

import scoreplug
import scoreplug.registry
import scoreplug.testing
from scoreplug import protocols, registry
from scoreplug.cli import main

pytest.importorskip("sphinx", reason="the site is built with the extra `docs`")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WEIGHED = 3_000_000


class Page(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.resources, self.anchors = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("href") and given.get("rel") not in ("canonical", "prev", "next"):
            self.resources.append(given["href"])
        elif tag in ("img", "script", "iframe", "source", "video") and given.get("src"):
            self.resources.append(given["src"])


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The built pages, by file; built once, for all processes of a parallel test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [
                sys.executable,
                "-m",
                "sphinx",
                "-q",
                "-W",
                "--keep-going",
                "-n",
                str(DOCS),
                str(folder / "html"),
            ]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
            assert done.returncode == 0, done.stderr[-3000:]
            (folder / "done").touch()
    return {path: Page(path.read_text()) for path in sorted((folder / "html").rglob("*.html"))}


def test_every_internal_link_and_anchor_leads_somewhere(site):
    dead = []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                dead.append(f"{path.name}: {link}")
            elif target in site and unquote(parts.fragment) not in site[target].anchors:
                dead.append(f"{path.name}: {link} (no such anchor)")

    assert not dead


def test_pages_load_nothing_from_elsewhere_and_every_picture_exists(site):
    wrong = []
    for path, page in site.items():
        for resource in page.resources:
            parts = urlsplit(resource)
            local = not parts.netloc and parts.scheme in ("", "data")
            if not local or (not parts.scheme and not (path.parent / unquote(parts.path)).exists()):
                wrong.append(f"{path.name}: {resource}")
    sheets = [sheet for path in site for sheet in path.parent.glob("_static/**/*.css")]
    wrong += [
        f"{sheet.name}" for sheet in set(sheets) if re.search(r"@import|url\(['\"]?(https?:)?//", sheet.read_text())
    ]

    assert not wrong


def test_every_component_has_a_page_with_its_parameters(site):
    from scoreplug.param import parameters

    pages = {path.parent.name + "/" + path.stem: path.read_text() for path in site}
    builtin = registry.Registry(registry.Selection(autoload=False))
    for component in builtin.components():
        text = pages[f"{component.spec.kind}s/{component.spec.name}"]
        for parameter in parameters(component.factory()):
            assert f">{parameter.name}<" in text, f"{component.id}: {parameter.name}"


def test_every_verb_has_its_options_in_the_reference(site):
    import click

    (text,) = [path.read_text() for path in site if path.name == "commands.html"]
    context = click.Context(main, info_name="scoreplug")
    for verb in main.list_commands(context):
        for option in main.get_command(context, verb).params:
            if isinstance(option, click.Option):
                assert f"cmdoption-scoreplug-{verb}-{option.opts[0].lstrip('-')}" in text.replace("_", "-"), option.opts


@pytest.mark.parametrize("module", [scoreplug, scoreplug.registry, scoreplug.testing], ids=lambda m: m.__name__)
def test_the_api_page_lists_what_is_public(module):
    listed = re.findall(r"^\.\. (?:auto)?\w+:: (scoreplug[\w.]*)$", (DOCS / "reference/api.rst").read_text(), re.M)
    here = {name.rpartition(".")[2] for name in listed if name.rpartition(".")[0] == module.__name__}

    submodules = {"registry"} if module is scoreplug else set()
    assert here - {"registry", "testing"} == set(module.__all__) - submodules


def test_the_api_page_lists_every_capability():
    listed = set(re.findall(r"autoclass:: scoreplug\.protocols\.(\w+)", (DOCS / "reference/api.rst").read_text()))
    nouns = {"SDE", "ScoreModel", "Operator", "Conditioner", "Sampler", "Step"}
    found = {
        name
        for name, value in vars(protocols).items()
        if isinstance(value, type) and value.__module__ == protocols.__name__
    }

    assert listed == found - nouns


def test_the_pictures_are_small_and_of_components_that_exist():
    pictures = sorted((DOCS / "images/components").glob("*.png"))
    builtin = registry.Registry(registry.Selection(autoload=False))
    names = {f"{c.spec.kind}-{c.spec.name}" for c in builtin.components()}

    assert {path.stem for path in pictures} <= names
    assert sum(path.stat().st_size for path in pictures) < WEIGHED
    without = {"model-openai-unet", "model-energy"}  # a network without weights has no samples to show
    assert names - {path.stem for path in pictures} == without


def test_the_picture_of_a_component_can_be_drawn_again(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/component_pictures.py"), "--out", str(tmp_path), "sde:cosine"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)

    assert (tmp_path / "sde-cosine.png").read_bytes().startswith(b"\x89PNG")


def test_the_front_page_draws_posterior_samples():
    """Verbatim, but for the numbers of steps and samples, so that it takes seconds."""
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "index.md").read_text(), re.S)
    names = {}

    exec(compile(example.replace("steps=100", "steps=2").replace("n=8", "n=2"), "index.md", "exec"), names)

    assert names["mean"].shape == names["std"].shape == (1, 64, 64)


def test_the_front_page_has_the_numbers_of_the_page_of_numbers(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    from components import numbers

    page = (DOCS / "posterior.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| mmps / smc |") and "vjp" not in line]

    expected = [cell.split(" / ")[-1] for cell in row.strip("| ").split(" | ")[2:]]
    assert "smc.rst) | " + " | ".join(expected) + " |" in numbers(page)


def test_the_plugin_directory_lists_every_plugin_of_this_repository():
    listed = re.findall(r"^\| (scoreplug-[\w-]+) \|", (DOCS / "plugins.md").read_text(), re.M)

    assert sorted(listed) == sorted(path.parent.name for path in ROOT.glob("plugins/scoreplug-*/pyproject.toml"))
