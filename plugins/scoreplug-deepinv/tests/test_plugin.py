from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from scoreplug import registry

README = Path(__file__).parent.parent / "README.md"


def test_the_plugin_is_found_without_torch_or_deepinv():
    code = (
        "import sys; from scoreplug import registry; registry.spec('operator', 'deepinv'); "
        "print([m for m in ('torch', 'numpy', 'deepinv') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_specs_belong_to_this_distribution():
    for kind, name in (("operator", "deepinv"), ("operator", "deepinv-svd"), ("model", "deepinv-denoiser")):
        assert registry.find(kind, name).plugin.name == "scoreplug-deepinv"


def test_the_readmes_examples_run(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    code = "\n".join(examples)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["DeepinvSVD (1, 8, 8)", "(2, 1, 8, 8)", "(2, 1, 8, 8)"]


def test_the_readmes_config_builds_the_operator():
    (config,) = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    operator = tomllib.loads(config)["operator"]
    assert registry.get_operator(operator.pop("name"), **operator).output_shape == (1, 64, 64)
