"""Checks of the spec and of its module; torch is not imported."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from scoreplug.registry.specs import API
from scoreplug.testing.kit import Subject, skip, states

_REFERENCE = re.compile(r"arXiv:\d{4}\.\d{4,5}(v\d+)?|doi:10\.\S+|https?://\S+")
_HEAVY = ("torch", "numpy", "scipy", "skimage", "matplotlib")


@states("The summary is one line of at most 120 characters that does not end in a full stop.", level="spec")
def summary_is_a_line(subject: Subject) -> None:
    summary = subject.spec.summary
    assert len(summary) <= 120, f"summary has {len(summary)} characters, 120 are allowed"
    assert not summary.endswith("."), "summary ends in a full stop"


@states("References are arXiv:NNNN.NNNNN, doi:10.... or a URL.", level="spec")
def references_are_citable(subject: Subject) -> None:
    for reference in subject.spec.references:
        assert _REFERENCE.fullmatch(reference), (
            f"reference {reference!r} is none of arXiv:..., doi:10..., http(s)://..."
        )


@states("The component is written for this version of the plugin contract.", level="spec")
def contract_is_this_one(subject: Subject) -> None:
    assert subject.spec.api == API, f"spec.api is {subject.spec.api}, the contract is {API}"


@states("The factory's module exists and defines the class, as far as can be seen without importing it.", level="spec")
def factory_exists(subject: Subject) -> None:
    module, _, name = subject.spec.factory.partition(":")
    found = importlib.util.find_spec(module)
    assert found is not None, f"module {module!r} of the factory cannot be found"
    if found.origin is None or not found.origin.endswith(".py"):
        skip(f"{module} is not a Python file")
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    names |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names |= {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert name in names, f"{module} does not define {name!r}"


@states("Importing the module of the spec imports neither torch nor numpy, so that listing stays fast.", level="spec")
def spec_module_is_light(subject: Subject) -> None:
    if subject.module is None:
        skip("the module that holds the spec is not known")
    code = (
        f"import importlib, sys; importlib.import_module({subject.module!r}); "
        f"print(*[m for m in {_HEAVY!r} if m in sys.modules])"
    )
    paths = [p for p in sys.path if p]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"importing {subject.module} fails: {done.stderr.strip().splitlines()[-1:]}"
    heavy = done.stdout.split()
    assert not heavy, (
        f"importing {subject.module} imports {', '.join(heavy)}; move that import into the method's module"
    )
