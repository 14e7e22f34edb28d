"""One page per component of the built-in plugin, written from the registry before Sphinx reads its sources."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from plain_text import _LINK, escape, to_rest
from sphinx.application import Sphinx

from scoreplug import registry
from scoreplug.param import parameters
from scoreplug.registry import Component, Registry, Selection
from scoreplug.registry.specs import KINDS, OF_POSTERIORS, ComponentSpec
from scoreplug.run import compatibility

FOLDER = "components"
PICTURES = "images/components"
TITLES = {
    "model": "Models",
    "sde": "SDEs",
    "operator": "Operators",
    "conditioner": "Conditioners",
    "sampler": "Samplers",
    "problem": "Problems",
}
INTRODUCTIONS = {
    "model": "A score model of p(x). Every model runs under every [SDE](sdes.md), exactly.",
    "sde": "The forward process x_t = alpha(t) x_0 + sigma(t) z: the noise levels, and how time runs over them.",
    "operator": "The forward operator A of y = A x + noise.",
    "conditioner": "Takes the score model of p(x) and a measurement, and returns the score model of p(x | y).",
    "sampler": "Takes a score model and returns samples; of a prior or of a posterior, it does not know.",
    "problem": "A prior, a measurement, and what is known of the posterior: `scoreplug bench` measures with it.",
}
PAIRS = {
    "model": ("sampler",),
    "operator": ("conditioner",),
    "conditioner": ("sampler", "operator"),
    "sampler": ("conditioner", "model"),
}
"""The kinds that a component of a kind has something to say to (`scoreplug.run.compatibility.matrix`)."""
STATES = {
    "published": "published together",
    "runs": "fits",
    "approximate": "runs, and approximates what is missing",
    "refused": "refused",
}


def write(folder: Path, pictures: Path) -> list[Path]:
    """Write the page of every built-in component, and one of each kind, into an empty `folder`."""
    previous = registry.default()
    registry.use(Registry(Selection(autoload=False)))
    try:
        pages = dict(_pages(folder, pictures))
    finally:
        registry.use(previous)
    for old in set(folder.rglob("*.*")) - set(pages):
        old.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:  # an unchanged page is not read again
            path.write_text(text)
    return list(pages)


def _pages(folder: Path, pictures: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "index.md", _all_kinds()
    yield folder / "numbers.inc", numbers((folder.parent / "posterior.md").read_text())
    for kind in KINDS:
        found = registry.components(kind)
        yield folder / f"{kind}s.md", _kind(kind, found)
        for component in found:
            picture = pictures / f"{kind}-{component.spec.name}.png"
            yield (
                folder / f"{kind}s" / f"{component.spec.name}.rst",
                page(component, picture if picture.exists() else None),
            )


FRONT = ("mmps / smc", "mmps / ancestral", "pigdm / smc", "pigdm / ancestral", "ddrm / ancestral", "dps / ancestral")
"""Rows of the page of numbers that stand on the front page, too."""


def numbers(posterior: str) -> str:
    """An excerpt of the page of numbers: the larger budget, for the methods of the front page."""
    section = re.search(r"^## Conditioners and samplers.*?(?=^\| problem)", posterior, re.S | re.M)
    if section is None:
        raise ValueError("docs/posterior.md has no section 'Conditioners and samplers'")
    head, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section[0].splitlines()
        if line.startswith("| ")
    ]
    found = {re.sub(r"\(grid.*?\)", "", row[0]): [cell.split(" / ")[-1] for cell in row[2:]] for row in rows}
    lines = ["| " + " | ".join(["conditioner, sampler", *head[2:]]) + " |", "|---" * (len(head) - 1) + "|"]
    lines += [f"| {_pair(name)} | " + " | ".join(found[name]) + " |" for name in FRONT]
    lines.append("| no measurement | " + " | ".join(found["none / ancestral"]) + " |")
    return "\n".join(lines) + "\n"


def _pair(name: str) -> str:
    conditioner, sampler = name.split(" / ")
    return (
        f"[{conditioner}](components/conditioners/{conditioner}.rst) + [{sampler}](components/samplers/{sampler}.rst)"
    )


def _all_kinds() -> str:
    lines = ["# Components", "", "Every built-in component has a page, written from its declaration. Plugins add more:"]
    lines += ["see [the plugin directory](../plugins.md). `scoreplug list` shows what is installed.", ""]
    lines += ["```{toctree}", ":maxdepth: 2", "", *(f"{kind}s" for kind in KINDS), "```", ""]
    return "\n".join(lines)


def _kind(kind: str, found: Sequence[Component]) -> str:
    lines = [f"# {TITLES[kind]}", "", INTRODUCTIONS[kind], "", "| name | what it is |", "|---|---|"]
    lines += [f"| [{c.spec.name}]({kind}s/{c.spec.name}.rst) | {_markdown(c.spec.summary)} |" for c in found]
    lines += ["", "```{toctree}", ":hidden:", "", *(f"{kind}s/{c.spec.name}" for c in found), "```", ""]
    return "\n".join(lines)


def _markdown(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "|*_<>[]" else sign for sign in text)


def page(component: Component, picture: Path | None) -> str:
    """The page of one component, in reStructuredText."""
    spec, factory = component.spec, component.factory()
    title = spec.name
    lines = [f".. _{spec.kind}-{spec.name}:", "", title, "=" * len(title), "", f"{escape(spec.summary)}.", ""]
    if picture is not None:
        alt, caption = _picture_text(spec)
        lines += [
            f".. figure:: /{PICTURES}/{picture.name}",
            f"   :alt: {alt}",
            "   :class: component",
            "",
            f"   {caption}",
            "",
        ]
    lines += _use(spec, factory)
    lines += _facts(component)
    lines += ["What it does", "-" * 12, "", *_documentation(factory)]
    lines += _parameters(factory)
    lines += _company(spec)
    return "\n".join(lines) + "\n"


def _picture_text(spec: ComponentSpec) -> tuple[str, str]:
    captions = {
        "sde": "Left: signal alpha(t) and noise sigma(t). Right: the noise level sigma/alpha.",
        "operator": "An image and what the operator makes of it, without noise.",
        "model": "Samples.",
        "problem": "What is known of the problem.",
        "conditioner": "The posterior of a Gaussian mixture of six modes, one value measured: exact samples, and what "
        "the method gives with two samplers, 100 steps and default parameters. W is the sliced Wasserstein distance "
        "to the exact samples, the dotted line what y says, grey the prior. Nothing is tuned: a gap between W and that "
        "of two exact sets is the method's bias, or too few steps.",
        "sampler": "Exact samples of a Gaussian mixture, and what the sampler makes of its exact score. W is the "
        "sliced Wasserstein distance to the exact samples. Grey: the prior; dotted: what y says.",
    }
    caption = captions[spec.kind]
    if spec.kind == "sampler" and any(need in OF_POSTERIORS for need in getattr(spec, "needs", ())):
        method = "mmps" if "twist" in spec.needs else "diffpir"
        caption = caption.replace("of its exact score", f"of ``{method}``, which gives what it needs beyond a score")
    return f"{spec.kind} {spec.name}: {spec.summary}", caption


def _use(spec: ComponentSpec, factory: Any) -> list[str]:
    required = [f"{p.name}=..." for p in _declared(factory) if p.required]
    arguments = ", ".join([repr(spec.name).replace("'", '"'), *required])
    command = {"problem": f"scoreplug bench --problem {spec.name}"}.get(
        spec.kind, f"scoreplug run --{spec.kind} {spec.name}"
    )
    return [
        ".. tab-set::",
        "",
        "   .. tab-item:: Python",
        "",
        "      .. code-block:: python",
        "",
        f"         registry.get_{spec.kind}({arguments})",
        "",
        "   .. tab-item:: Command line",
        "",
        "      .. code-block:: bash",
        "",
        f"         {command}",
        "",
        "",
    ]


def _facts(component: Component) -> list[str]:
    spec = component.spec
    words = {
        "needs": "needs",
        "provides": "provides",
        "keeps": "keeps of the prior",
        "exact_with": "exact with",
        "canonical": "published with",
        "aliases": "also called",
    }
    switches = {
        "vjp": "one vector-Jacobian product of the network per evaluation",
        "exact": "exact on a Gaussian prior with a linear operator",
        "trainable": "can be trained by ``scoreplug train``",
        "corrects": "can be the corrector of ``pc``",
        "couples": "samples of one population depend on each other",
        "point": "reports an estimate, whose spread says nothing of the posterior's",
    }
    rows = [("id", f"``{component.id}``"), ("class", f"``{spec.factory}``")]
    for field, word in words.items():
        if values := getattr(spec, field, ()):
            rows.append((word, ", ".join(f"``{value}``" for value in values)))
    rows += [("note", text) for field, text in switches.items() if getattr(spec, field, False)]
    if references := [_reference(r) for r in spec.references]:
        rows.append(("reference", ", ".join(references)))
    return _table(("", ""), rows, header=False, widths="20 80")


def _reference(reference: str) -> str:
    match = _LINK.match(reference)
    return escape(reference).removeprefix("\\ ").removesuffix("\\ ") if match else f"``{reference}``"


def _documentation(factory: Any) -> list[str]:
    """The module's text, then the class's own."""
    lines: list[str] = []
    for owner in (importlib.import_module(factory.__module__), factory):
        text = vars(owner).get("__doc__")
        if isinstance(text, str) and text.strip() and not text.startswith(f"{getattr(owner, '__name__', '')}("):
            lines += [*to_rest(inspect.cleandoc(text)), ""]
    return lines


def _declared(factory: Any) -> tuple[Any, ...]:
    return parameters(factory) if inspect.isclass(factory) and attrs.has(factory) else ()


def _parameters(factory: Any) -> list[str]:
    declared = _declared(factory)
    lines = ["Parameters", "-" * 10, ""]
    if not declared:
        return [*lines, "None.", ""]
    rows = [
        (
            f"``{p.name}``",
            escape(p.type_name),
            "required" if p.required else f"``{_default(p.default)}``",
            escape(", ".join(filter(None, (p.range, p.unit and f"unit: {p.unit}")))),
            escape(p.doc),
        )
        for p in declared
    ]
    return lines + _table(("name", "type", "default", "range, unit", "meaning"), rows, widths="14 16 12 12 46")


def _default(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _company(spec: ComponentSpec) -> list[str]:
    """What goes with it, and why not."""
    kinds = PAIRS.get(spec.kind, ())
    if not kinds:
        return []
    lines = ["What goes with what", "-" * 19, ""]
    for kind in kinds:
        first = spec.kind == "conditioner" or spec.kind == "model"
        verdicts = {
            other.name: compatibility.verdict(spec, other) if first else compatibility.verdict(other, spec)
            for other in registry.list(kind)
        }
        rows = []
        for state, words in STATES.items():
            names = [f":ref:`{name} <{kind}-{name}>`" for name, v in verdicts.items() if v.state == state]
            if names:
                rows.append((words, ", ".join(names)))
        lines += [f".. rubric:: {TITLES[kind]}", "", *_table(("", ""), rows, header=False, widths="25 75")]
        reasons = dict.fromkeys(v.reason for v in verdicts.values() if v.state == "refused")
        if reasons:
            lines += [f"The reason of a refusal, as ``scoreplug run`` says it: {escape(next(iter(reasons)))}.", ""]
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, widths: str, header: bool = True) -> list[str]:
    lines = [".. list-table::", f"   :widths: {widths}", *(["   :header-rows: 1"] if header else []), ""]
    for row in [head, *rows] if header else rows:
        for number, cell in enumerate(row):
            lines.append(f"   {'* -' if number == 0 else '  -'} {cell or chr(160)}")
    return [*lines, ""]


def _before_reading(app: Sphinx) -> None:
    write(Path(app.srcdir) / FOLDER, Path(app.srcdir) / PICTURES)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _before_reading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
