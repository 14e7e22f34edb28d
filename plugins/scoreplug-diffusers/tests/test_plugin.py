from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from scoreplug import registry

README = Path(__file__).parent.parent / "README.md"


def test_the_plugin_is_found_without_torch_or_diffusers():
    code = (
        "import sys; from scoreplug import registry; registry.spec('model', 'diffusers'); "
        "print([m for m in ('torch', 'numpy', 'diffusers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_spec_belongs_to_this_distribution():
    assert registry.find("model", "diffusers").plugin.name == "scoreplug-diffusers"


def test_the_readmes_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(1, 8, 8) (-1.0, 1.0)", "(2, 1, 8, 8)"]


def test_the_command_line_checks_a_saved_pipeline_without_chatter(save):
    from diffusers import DDPMScheduler

    path, _ = save(DDPMScheduler())
    code = "from scoreplug.cli import main; main()"
    arguments = ["check", "diffusers", "--level", "api", "--set", f"path={path}"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
