"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, one thread each: before torch is imported, and for its children
    os.environ.setdefault("OMP_NUM_THREADS", "1")


class Site:
    """A folder of installed distributions, as pip would leave them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def install(
        self,
        distribution: str,
        modules: Mapping[str, str],
        entry_points: Mapping[str, str],
        *,
        version: str = "1.0",
        requires: Sequence[str] = (),
        direct_url: str | None = None,
    ) -> None:
        """Install the `modules` (name to source) of a distribution that declares scoreplug `entry_points`."""
        for name, source in modules.items():
            file = self.path.joinpath(*name.split(".")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        head = [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join([f"Name: {distribution}", f"Version: {version}", *head, "", "text"]))
        lines = [f"{name} = {value}" for name, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[scoreplug]", *lines]))
        if direct_url is not None:
            (info / "direct_url.json").write_text(direct_url)

    def install_samplers(self, distribution: str, *specs: str, module: str) -> None:
        """Install a plugin that yields `SamplerSpec(...)` for each of `specs`, the arguments without a factory."""
        lines = [f"    yield SamplerSpec(factory='{module}:Thing', {spec})" for spec in specs]
        head = "from scoreplug import SamplerSpec, hookimpl\nclass Thing: pass\n@hookimpl\ndef scoreplug_components():"
        self.install(distribution, {module: "\n".join([head, *lines])}, {"it": module})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder of distributions on sys.path; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    site = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site.path))
    yield site
    for name in set(sys.modules) - before:
        if str(site.path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stored decompositions and settings are the test run's: neither read from the user's nor left there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCOREPLUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("SCOREPLUG_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))  # a developer may disable plugins
        yield
