"""Every block of every tutorial runs, verbatim and in order, as a newcomer would run it in an empty folder."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>[\w-]+) -->\n)?"
    r"```(?:(?P<language>python|bash|toml)|\{code-block\} python\n:caption: (?P<file>\S+)\n)\n(?P<body>.*?)```",
    re.S,
)


class Reader:
    """Types what a page says: Python into one session, commands into a shell, named blocks into files."""

    def __init__(self, folder):
        self.folder, self.session, self.path = folder, [], [str(folder / "site")]

    def follow(self, page):
        for block in BLOCK.finditer(page.read_text()):
            if block["needs"] and not importlib.util.find_spec(block["needs"].replace("-", "_")):
                continue
            if block["file"]:
                file = self.folder / block["file"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block["body"].lstrip("\n"))
            elif block["language"] == "python":
                self.session.append(block["body"])
            elif block["language"] == "bash":
                self.python(page)  # the shell needs the files that the session wrote
                self.shell(block["body"])
            else:
                assert tomllib.loads(block["body"])
        self.python(page)

    def python(self, page):
        """Run what was typed; blocks that are through already stay typed, and only the new ones run."""
        if not self.session:
            return
        if not hasattr(self, "names"):
            self.names = {"__name__": "__main__"}
        source, self.session = "\n".join(self.session), []
        exec(compile(source, str(page), "exec"), self.names)

    def shell(self, commands):
        commands = re.sub(r'^pip install -e "?([\w-]+)(\[\w+\])?"?$', self.installed, commands, flags=re.M)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"

    def installed(self, command):
        """What `pip install -e` leaves behind, without the network: metadata, and the sources on the path."""
        folder = self.folder / command[1]
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        info = self.folder / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = [f"{name} = {value}" for name, value in project["entry-points"]["scoreplug"].items()]
        (info / "entry_points.txt").write_text("\n".join(["[scoreplug]", *lines]))
        self.path.append(str(folder / "src"))
        return "true"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("default")  # a reader's session warns; it does not stop
def test_a_tutorial_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    Reader(tmp_path).follow(page)


def test_every_tutorial_has_code():
    assert len(PAGES) == 8
    for page in PAGES:
        assert list(BLOCK.finditer(page.read_text())), page.name


def test_no_block_is_overlooked():
    """Every fence of a tutorial is one that the reader understands, or plain text."""
    for page in PAGES:
        opened = re.findall(r"^```(\S.*)$", page.read_text(), re.M)
        known = [language for language in opened if language not in ("text",)]
        assert len(known) == len(list(BLOCK.finditer(page.read_text()))), page.name
