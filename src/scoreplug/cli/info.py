"""`scoreplug info`"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from typing import Any

import click

from scoreplug import registry

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@click.command("info")
@click.option("--no-devices", is_flag=True, help="Do not import torch to look for devices.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(*, no_devices: bool, as_json: bool) -> None:
    """Print versions, devices, plugins and settings, to paste into an issue.

    The home folder is written ~, and neither the user's name nor what an address holds of credentials is printed.
    """
    facts = _anonymous(_facts(devices=not no_devices))
    if as_json:
        import json

        click.echo(json.dumps(facts, indent=2))
        return
    for title, values in facts.items():
        click.echo(f"{title}:" if values else f"{title}: none")
        width = max(map(len, values), default=0)
        for name, value in values.items():
            click.echo(f"  {name:<{width}}  {value}".rstrip())


def _facts(*, devices: bool) -> dict[str, dict[str, str]]:
    facts = {
        "scoreplug": _system(),
        "dependencies": dict(_dependencies()),
        "plugins": {plugin.name: _plugin(plugin) for plugin in registry.plugins()},
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith("SCOREPLUG_")},
        "threads": {"processors": str(os.cpu_count()), **{k: os.environ[k] for k in _THREADS if k in os.environ}},
        "user config": _user_config(),
    }
    return facts | {"devices": _devices()} if devices else facts


def _system() -> dict[str, str]:
    return {
        "scoreplug": _version("scoreplug") or "not installed",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "executable": sys.executable,
    }


def _dependencies() -> Iterator[tuple[str, str]]:
    """What scoreplug requires, and what of its extras is there."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        lines = requires("scoreplug") or []
    except PackageNotFoundError:
        lines = []
    wanted = {r.name: "extra" in str(r.marker or "") for r in sorted(map(Requirement, lines), key=lambda r: r.name)}
    for name, optional in wanted.items():
        version = _version(name)
        if version is not None or not optional:
            yield name, version or "not installed"


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _plugin(plugin: registry.Plugin) -> str:
    origin = plugin.origin()
    where = f", {'editable, ' if origin.editable else ''}{origin.url}" if origin else ""
    commit = f" at {origin.commit}" if origin and origin.commit else ""
    state = (
        f"{plugin.state}: {plugin.reason}" if plugin.reason else f"{plugin.state}, {len(plugin.components)} components"
    )
    return f"{plugin.version or plugin.value}{where}{commit}: {state}"


def _user_config() -> dict[str, str]:
    from scoreplug.registry._user_config import read_disabled, user_config

    file = user_config()
    try:
        disabled = ", ".join(read_disabled(file))
    except ValueError as error:
        return {"file": str(file), "problem": str(error)}
    return {"file": str(file) if file.exists() else f"{file} (not there)", "disabled": disabled or "none"}


def _devices() -> dict[str, str]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001  a broken torch is what an issue may be about
        return {"torch": f"cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})"}
    found = {"torch": f"{torch.__version__}, {torch.get_num_threads()} threads", "cpu": platform.machine()}
    for number in range(torch.cuda.device_count()):
        found[f"cuda:{number}"] = torch.cuda.get_device_name(number)
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _anonymous(value: Any) -> Any:
    """The same without the home folder, the user's name in a path, and credentials in an address."""
    if isinstance(value, dict):
        return {name: _anonymous(inner) for name, inner in value.items()}
    end = r"(?=[/\\]|\W|$)"
    text = re.sub(r"(?<=://)[^/@\s]+@", "", value)
    home = os.path.expanduser("~").rstrip("/\\")
    if home:
        text = re.sub(re.escape(home) + end, "~", text)
    for user in {os.environ.get(name) for name in ("USER", "LOGNAME", "USERNAME")} - {None, ""}:
        text = re.sub(rf"(?<=[/\\]){re.escape(str(user))}{end}", "USER", text)
    return text
