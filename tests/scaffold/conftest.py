"""A virtual environment to install into, which sees what this interpreter sees."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest


@attrs.frozen
class Environment:
    """A virtual environment on top of this one: nothing that is installed into it is seen outside."""

    path: Path

    @property
    def python(self) -> str:
        folder = "Scripts" if os.name == "nt" else "bin"
        return str(self.path / folder / "python")

    def run(self, *command: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command with one thread; a failure shows what the command said."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def scoreplug(self, *args: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        code = "from scoreplug.cli import main; main(prog_name='scoreplug')"
        return self.run(self.python, "-c", code, *args, cwd=cwd, check=check)

    def install(self, *folders: Path) -> None:
        """`pip install -e`, without the network."""
        pytest.importorskip("hatchling", reason="packages are built with hatchling")
        pytest.importorskip("editables", reason="hatchling needs it for editable packages")
        options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
        each = [part for folder in folders for part in ("-e", str(folder))]
        self.run(self.python, "-m", "pip", "install", *options, *each)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make(tmp_path_factory.mktemp("environment"))


def make(path: Path) -> Environment:
    """An environment without a pip of its own; `addsitedir` also reads the parent's .pth files (editable packages)."""
    venv.create(path, with_pip=False, symlinks=os.name != "nt")
    variables: Mapping[str, str] = {"base": str(path), "platbase": str(path)}
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars=dict(variables)))
    parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({parent!r})" for parent in sorted(parents)]
    (site / "parent.pth").write_text("\n".join(lines))
    return Environment(path)
