"""The installer of this interpreter: its pip, or uv if it has none."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import click

from scoreplug.registry._plugin import BUILTIN


def install(
    packages: Sequence[str], *, editables: Sequence[str] = (), upgrade: bool = False, dry_run: bool = False
) -> int:
    """Install packages beside the scoreplug that runs. Returns the installer's exit code.

    scoreplug is named in the same command, at its running version: the installer then solves for both, and refuses a
    package that would replace it, or bring a torch that it does not work with.
    """
    tool = _tool()
    arguments = [*tool, "install", *(["--dry-run"] if dry_run else [])]
    if upgrade:
        # uv's --upgrade means every package named, and scoreplug is named so as to stay what it is
        arguments += [f"--upgrade-package={p}" for p in packages] if _is_uv(tool) else ["--upgrade"]
    return _call([*arguments, *(f"--editable={path}" for path in editables), *packages, *_scoreplug_itself()])


def uninstall(distributions: Sequence[str]) -> int:
    """Uninstall distributions, without a question. Returns the installer's exit code."""
    tool = _tool()
    return _call([*tool, "uninstall", *([] if _is_uv(tool) else ["--yes"]), *distributions])


def refuse_if_managed() -> None:
    """Refuse to change what the system's package manager owns.

    Raises:
        ValueError: if the interpreter is marked so (PEP 668) and is not that of a virtual environment.
    """
    marker = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix == sys.base_prefix and marker.is_file():
        raise ValueError(
            f"this Python ({sys.executable}) belongs to the system's package manager, which does not expect others to "
            "install into it; make a virtual environment (python3 -m venv .venv) for scoreplug and its plugins"
        )


def _tool() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "pip"]
    raise click.ClickException(
        f"{sys.executable} has no pip, and there is no uv on the PATH; `python -m ensurepip` installs pip"
    )


def _is_uv(tool: Sequence[str]) -> bool:
    return tool[0] != sys.executable


def _scoreplug_itself() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return [f"{BUILTIN}=={version(BUILTIN)}"]
    except PackageNotFoundError:
        return []  # used from a folder on the path: there is nothing to replace


def _call(command: Sequence[str]) -> int:
    """Run it with its output on our stderr: stdout has what changed."""
    if _is_uv(command):
        command = [*command[:3], "--python", sys.executable, *command[3:]]
    click.echo(f"+ {' '.join(command)}", err=True)
    return subprocess.call(list(command), stdout=2)
