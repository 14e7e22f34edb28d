"""Fixtures for the command line."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scoreplug import registry
from scoreplug.cli import main


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the user of this machine has disabled is not read, and nothing is disabled for him."""
    folder = tmp_path / "config"
    monkeypatch.setenv("SCOREPLUG_CONFIG_DIR", str(folder))
    return folder


@pytest.fixture
def scoreplug() -> Iterator[Callable[..., Result]]:
    """Run `scoreplug ARGS` in this process; the registry that it put in use is dropped afterwards."""
    yield lambda *args, env=None, input=None: CliRunner().invoke(
        main, args, prog_name="scoreplug", env=env, input=input
    )
    registry.use(None)


class Environment:
    """A virtual environment that sees this one's packages, and whose pip installs into itself, without a network."""

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.folder = folder / "venv"
        venv.create(self.folder, with_pip=False, symlinks=True)
        self.python = self.folder / "bin" / "python"
        packages = self.folder / f"lib/python{sysconfig.get_python_version()}/site-packages"
        # addsitedir, unlike a plain line, also reads the .pth files there, such as that of an editable scoreplug
        (packages / "host.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        self.variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "SCOREPLUG_", "PYTHON"))},
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "SCOREPLUG_CONFIG_DIR": str(folder / "config"),
            "OMP_NUM_THREADS": "1",
        }
        self.cwd = folder

    def wheel(
        self,
        name: str,
        modules: Mapping[str, str],
        entry_points: Mapping[str, str],
        *,
        version: str = "1.0",
        requires: Sequence[str] = (),
    ) -> Path:
        """Build a wheel of `modules` (name to source) that declares scoreplug `entry_points`."""
        stem = f"{name.replace('-', '_')}-{version}"
        info = f"{stem}.dist-info"
        points = [f"{point} = {value}" for point, value in entry_points.items()]
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        files = {f"{module}.py": source for module, source in modules.items()}
        files[f"{info}/METADATA"] = "\n".join([*head, *(f"Requires-Dist: {line}" for line in requires), ""])
        files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        if points:
            files[f"{info}/entry_points.txt"] = "\n".join(["[scoreplug]", *points, ""])
        files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
        path = self.wheels / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in files.items():
                archive.writestr(file, text)
        return path

    def sampler(self, name: str, *samplers: str, version: str = "1.0", requires: Sequence[str] = ()) -> Path:
        """Build the wheel of a plugin that has samplers of these names."""
        module = name.replace("-", "_")
        lines = [
            f"    yield SamplerSpec(name={sampler!r}, summary='s', factory='{module}:Thing')" for sampler in samplers
        ]
        head = "from scoreplug import SamplerSpec, hookimpl\nclass Thing: pass\n@hookimpl\ndef scoreplug_components():"
        modules = {module: "\n".join([head, *lines])}
        return self.wheel(name, modules, {"it": module}, version=version, requires=requires)

    def __call__(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `scoreplug ARGS` there."""
        command = [str(self.python), "-P", "-m", "scoreplug", *args]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.variables | variables, cwd=self.cwd, check=False
        )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One environment for the tests of a file, which install and uninstall in it."""
    pytest.importorskip("pip")
    return Environment(tmp_path_factory.mktemp("environment"))
