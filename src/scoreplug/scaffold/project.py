"""What a new package is made of, and how it comes onto the disk: whole, or not at all."""

from __future__ import annotations

import difflib
import functools
import os
import shutil
import uuid
from collections.abc import Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from scoreplug.registry import UnknownKindError
from scoreplug.registry.specs import KINDS, SPECS
from scoreplug.scaffold.names import check_name, distribution_of, module_of, objections, rivals

if TYPE_CHECKING:
    from jinja2 import Environment

SUMMARIES = {
    "model": "A network of one's own that predicts the image or the noise",
    "sde": "Variance preserving, with a noise level that is a power of the time",
    "operator": "Every k-th row of an image",
    "conditioner": "A Gaussian likelihood of one variance around the denoised estimate",
    "sampler": "Euler steps of the reverse SDE with more noise or less",
    "problem": "White noise measured in white noise: the posterior is known",
}
"""What is made if the author says nothing: the summary of each kind's template."""

LONGEST_SUMMARY = 100
"""Characters, so that the line of the spec that holds it fits into 120."""


def _check_kind(project: Project, field: object, value: str) -> None:
    del project, field
    if value not in KINDS:
        raise UnknownKindError(value, KINDS, tuple(difflib.get_close_matches(value, KINDS, n=1)))


def _check_name(project: Project, field: object, value: str) -> None:
    del project, field
    check_name(value)


def _check_text(project: Project, field: Any, value: str) -> None:
    """One plain line: it goes into TOML, into Python and into Markdown."""
    del project
    if len(value) > LONGEST_SUMMARY:
        raise ValueError(f"{field.name} has at most {LONGEST_SUMMARY} characters (got {len(value)})")
    if not value.isprintable() or set(value) & set('"\\') or value != value.strip():
        raise ValueError(
            f"{field.name} is one line of text without double quotes, backslashes and outer blanks (got {value!r})"
        )


def _check_summary(project: Project, field: Any, value: str) -> None:
    if not value:
        raise ValueError("summary is one line of text (got none)")
    if value.endswith("."):
        raise ValueError(f"summary is a line without a full stop: {value.rstrip('.')!r}")
    _check_text(project, field, value)


@attrs.frozen(kw_only=True)
class Project:
    """A package to be.

    Args:
        kind: of its component.
        name: of its component.
        author: "Name" or "Name <address>"; left out of the package if it is empty.
        summary: one line for `scoreplug list`; that of the template if it is empty.
        ci: with a workflow for GitHub.
        by_id: the component is called by its full id, since the name alone leads to another one.

    Raises:
        UnknownKindError: if there is no such kind.
        ValueError: if name, author or summary cannot be that.
    """

    kind: str = attrs.field(validator=_check_kind)
    name: str = attrs.field(validator=_check_name)
    author: str = attrs.field(default="", validator=_check_text)
    summary: str = attrs.field(
        default=attrs.Factory(lambda self: SUMMARIES.get(self.kind, ""), takes_self=True), validator=_check_summary
    )
    ci: bool = True
    by_id: bool = False

    @property
    def distribution(self) -> str:
        """Name of the package for pip, and of its folder."""
        return distribution_of(self.name)

    @property
    def called(self) -> str:
        """What leads to the component on a command line."""
        return f"{self.distribution}:{self.name}" if self.by_id else self.name

    @property
    def article(self) -> str:
        return "an" if self.kind in ("sde", "operator") else "a"

    @property
    def package(self) -> str:
        """Name of the package for Python."""
        return f"scoreplug_{module_of(self.name)}"

    @property
    def method(self) -> str:
        """The method's file, in the package's folder."""
        return f"src/{self.package}/{module_of(self.name)}.py"

    def files(self) -> dict[str, str]:
        """The text of every file, by its path in the package's folder."""
        facts = self._facts()
        found = {}
        for template in _templates().list_templates():
            folder, _, path = template.removesuffix(".j2").partition("/")
            fragment = path.startswith("_")  # a part of a file that all kinds share
            if folder not in ("common", self.kind) or fragment or (path.startswith(".github/") and not self.ci):
                continue
            path = path.format(package=self.package, module=facts["module"])
            found[path] = _templates().get_template(template).render(facts)
        return found

    def _facts(self) -> Mapping[str, Any]:
        """What the templates know."""
        name, address = parseaddr(self.author)
        return {
            "kind": self.kind,
            "article": self.article,
            "name": self.name,
            "called": self.called,
            "distribution": self.distribution,
            "package": self.package,
            "module": module_of(self.name),
            "cls": "".join(word.capitalize() for word in self.name.split("-")),
            "spec_class": SPECS[self.kind].__name__,
            "summary": self.summary,
            "author": name or self.author,
            "email": address if name else "",
        }


def settled(project: Project, *, force: bool = False) -> Project:
    """The project with a name that is its own among what is installed.

    Args:
        project: as the author wants it.
        force: take the name although something speaks against it; a component of that name is then called by its id.

    Raises:
        ValueError: if something speaks against the name.
    """
    if (against := objections(project.name)) and not force:
        raise ValueError(f"{'; '.join(against)}. Choose another name, or take it with --force")
    return attrs.evolve(project, by_id=bool(rivals(project.name)))


def write(project: Project, out: str | Path = ".") -> Path:
    """Write a package's folder.

    Args:
        project: what it is.
        out: the folder to put it in; made if it is not there.

    Returns:
        The package's folder, `out`/scoreplug-NAME.

    Raises:
        FileExistsError: if the folder is there, and not empty.
        OSError: if it cannot be written; nothing is left behind then.
    """
    folder = Path(out) / project.distribution
    _check_free(folder)
    files = project.files()

    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        for path, text in files.items():
            file = temporary / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        if folder.is_dir():
            folder.rmdir()  # empty, and not every system renames onto it
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _check_free(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FileExistsError(f"{str(folder)!r} is no folder; move it away, or choose another place by --out")
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(
            f"the folder {str(folder)!r} is not empty, and nothing is overwritten; move it away, or choose another "
            "place by --out"
        )


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("scoreplug.scaffold"),
        undefined=StrictUndefined,  # a name that is misspelt in a template is an error, not an empty string
        autoescape=False,  # Python, TOML and Markdown, not HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
