"""Which names a new component may have."""

from __future__ import annotations

import keyword
import re
import sys

from scoreplug import registry

LONGEST = 28
"""With it in package, module and class, the generated lines still fit into 120 characters."""

_FORM = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TAKEN = {
    "plugin": "the module that names a package's components is called plugin.py, and the method's would be too",
    "builtin": "the package of the built-in methods is called scoreplug_builtin",
}


def distribution_of(name: str) -> str:
    """The distribution's name."""
    return f"scoreplug-{name}"


def module_of(name: str) -> str:
    """The module's name."""
    return name.replace("-", "_")


def check_name(name: str) -> None:
    """Refuse a name that no component can have.

    Raises:
        ValueError: with the reason, and a name that would do.
    """
    if not _FORM.fullmatch(name):
        near = _near(name)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(
            f"a component's name is lower case with hyphens and begins with a letter, like 'my-method' "
            f"(got {name!r}){hint}"
        )
    if name.startswith("scoreplug-"):
        raise ValueError(
            f"the package's name gets the prefix by itself: leave it out, {name.removeprefix('scoreplug-')!r}"
        )
    if len(name) > LONGEST:
        raise ValueError(f"a name has at most {LONGEST} characters here (got {name!r}, which has {len(name)})")
    if keyword.iskeyword(module_of(name)):
        raise ValueError(
            f"{name!r} is a keyword of Python, so that no module can be called that; add a word, {name + '-method'!r}"
        )
    if name in _TAKEN:
        raise ValueError(f"{name!r} cannot be the name: {_TAKEN[name]}; add a word, {name + '-method'!r}")


def objections(name: str) -> tuple[str, ...]:
    """What speaks against a name that is possible, one sentence each; empty if nothing does."""
    found = [_rivalry(name, component) for component in rivals(name)]
    if module_of(name) in sys.stdlib_module_names:
        found.append(
            f"{module_of(name)}.py is a module of Python's standard library, which the new file would hide from "
            "scripts in its folder"
        )
    return tuple(found)


def rivals(name: str) -> tuple[registry.Component, ...]:
    """Components of other packages that have the name or alias."""
    ours = distribution_of(name)
    return tuple(
        component
        for component in registry.components()
        if name in (component.spec.name, *component.spec.aliases) and component.plugin.name != ours
    )


def _rivalry(name: str, component: registry.Component) -> str:
    kind, dist = component.spec.kind, component.plugin.name
    if component.spec.name != name:
        return f"{name!r} is another name of the {kind} {component.spec.name!r} of {dist}, and would be taken from it"
    if component.plugin.builtin:
        full = f"{distribution_of(name)}:{name}"
        return f"{name!r} is the name of a built-in {kind}, which keeps it: yours would be called {full}"
    return f"{name!r} is the name of a {kind} of {dist}: with both installed each needs its full id"


def _near(name: str) -> str | None:
    """The name in the right form, if there is one."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name.strip())
    near = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return near if _FORM.fullmatch(near) else None
