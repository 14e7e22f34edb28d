"""`scoreplug info`: what an issue needs to know, and nothing about who wrote it."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
import os
from pathlib import Path

import pytest

from scoreplug.cli.info import _anonymous


def facts(scoreplug, *args, **kwargs):
    result = scoreplug("info", "--json", *args, **kwargs)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_versions_are_those_of_the_distributions(scoreplug):
    found = facts(scoreplug, "--no-devices")

    assert found["scoreplug"]["scoreplug"] == importlib.metadata.version("scoreplug")
    for name in ("torch", "numpy", "attrs", "click"):
        assert found["dependencies"][name] == importlib.metadata.version(name)


def test_plugins_settings_and_threads(scoreplug, site, config_folder):
    site.install("fake-bad", {"fake_bad": "1 / 0"}, {"it": "fake_bad"})
    site.install_samplers("fake-off", "name='x', summary='s'", module="fake_off_module")
    scoreplug("disable", "fake-off")
    found = facts(scoreplug, "--no-devices", env={"SCOREPLUG_STRICT": "0", "OMP_NUM_THREADS": "3"})

    assert found["plugins"]["fake-bad"] == "1.0: failed: ZeroDivisionError: division by zero"
    assert "disabled by `scoreplug disable`" in found["plugins"]["fake-off"]
    assert found["environment"]["SCOREPLUG_STRICT"] == "0"
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert found["user config"] == {"file": str(config_folder / "plugins.toml"), "disabled": "fake-off"}


def test_devices(scoreplug):
    torch = pytest.importorskip("torch")

    assert facts(scoreplug)["devices"]["torch"].startswith(f"{torch.__version__}, ")


def test_a_torch_that_cannot_be_imported_is_a_line(scoreplug, monkeypatch):
    whole = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "torch":
            raise OSError("libcudart.so.12: cannot open\nshared object file")
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)

    assert facts(scoreplug)["devices"] == {
        "torch": "cannot be imported (OSError: libcudart.so.12: cannot open shared object file)"
    }


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("/home/jane/plugins/x.py", "~/plugins/x.py"),
        ("file:///home/jane/x", "file://~/x"),
        ("/home/jane:/home/janet", "~:/home/janet"),
        ("/scratch/jane/x", "/scratch/USER/x"),
        ("https://jane:secret@example.org/x.git", "https://example.org/x.git"),
        ("https://example.org/x@1.0", "https://example.org/x@1.0"),
    ],
)
def test_the_user_stays_unnamed(monkeypatch, text, printed):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "/home/jane"))
    monkeypatch.setenv("USER", "jane")

    assert _anonymous({"a": {"b": text}}) == {"a": {"b": printed}}


def test_the_home_folder_is_not_printed(scoreplug, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCOREPLUG_CONFIG_DIR", str(tmp_path / "config"))
    text = scoreplug("info", "--no-devices").stdout

    assert str(Path(tmp_path)) not in text
    assert "~/config/plugins.toml (not there)" in text
