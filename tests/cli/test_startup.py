"""Many plugins do not make a command slow: none of them, and nothing that looks at them, imports the numerics."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SLOW = ("torch", "numpy", "scipy", "skimage", "matplotlib", "packaging", "platformdirs", "importlib.metadata", "rich")
"""The last four are quick beside torch, but each is a tenth of a command or more."""


@pytest.mark.parametrize(
    "args",
    [["list"], ["list", "--json"], ["list", "--search", "dps"], ["plugins", "--requirements"], ["show", "--help"]],
)
def test_with_fifteen_plugins_nothing_slow_is_imported(site, args):
    for n in range(15):
        spec = f"name='s-{n}', summary='s', references=('arXiv:2101.{n:05}',)"
        site.install_samplers(f"fake-{n}", spec, module=f"fake_module_{n}")
        (info,) = site.path.glob(f"fake_{n}-1.0.dist-info")
        (info / "METADATA").write_text(f"Name: fake-{n}\nVersion: 1.0\nRequires-Dist: scoreplug>=0.1\n")
    code = (
        f"import sys; from scoreplug.cli import main; main({args!r}, prog_name='scoreplug', standalone_mode=False); "
        f"print([m for m in {SLOW!r} if m in sys.modules], file=sys.stderr)"
    )
    env = os.environ | {"PYTHONPATH": str(site.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)

    assert result.stderr == "[]\n"
    assert args != ["list"] or result.stdout.count(" s-") == 15


@pytest.mark.parametrize(
    "args", [["disable", "fake-0"], ["enable", "fake-0"], ["completion", "bash"], ["info", "--no-devices"]]
)
def test_the_verbs_around_plugins_import_no_numerics(site, args):
    site.install_samplers("fake-0", "name='s', summary='s'", module="fake_module_0")
    code = (
        f"import sys; from scoreplug.cli import main; main({args!r}, prog_name='scoreplug', standalone_mode=False); "
        f"print([m for m in {SLOW[:5]!r} if m in sys.modules], file=sys.stderr)"
    )
    env = os.environ | {"PYTHONPATH": str(site.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)

    assert result.stderr == "[]\n"
