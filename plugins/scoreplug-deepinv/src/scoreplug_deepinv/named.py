"""Classes by name: "Inpainting" of deepinv's own, "package.module:Class" of anybody's."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from scoreplug.param import ParameterError


def find(component: str, name: str, home: str) -> Callable[..., Any]:
    """The class, or function, of that name.

    Args:
        component: who asks, for the error.
        name: of `home`, or "package.module:Class".
        home: the module of names without one.

    Raises:
        ParameterError: if it cannot be imported, or there is none.
    """
    module_name, colon, attribute = name.rpartition(":")
    module_name = module_name if colon else home
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ParameterError(component, [f"{name!r} cannot be imported: {error}"]) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; write 'package.module:Class' for one of another module"
        raise ParameterError(component, [f"{module_name} has no {attribute!r}{hint}"])
    return found


def build(component: str, name: str, home: str, params: Mapping[str, Any], seed: int) -> Any:
    """The object. Whatever its construction draws comes from `seed`, and the global generator stays as it is.

    Raises:
        ParameterError: if there is no such class, or it refuses its parameters.
    """
    make = find(component, name, home)
    try:
        # on the CPU, whatever torch's default device is; deepinv warns of arguments that it does not know
        with _seeded(seed), torch.device("cpu"), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*passed to .* but are ignored")
            own = {"rng": torch.Generator().manual_seed(seed)} if _takes_rng(make) else {}
            return make(**{**own, **_tuples(params)})
    except Exception as error:  # whatever the constructor of anybody's class leads to
        given = ", ".join(params) or "nothing"
        raise ParameterError(component, [f"{name} cannot be built with params {given}: {error}"]) from error


def _takes_rng(make: Callable[..., Any]) -> bool:
    """Where deepinv draws from a generator of its own, that one is to be of the seed as well."""
    return "rng" in inspect.signature(make).parameters


def _tuples(value: Any) -> Any:
    """Lists as tuples: a configuration file has no others."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    state = torch.get_rng_state()
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    try:
        yield
    finally:
        torch.set_rng_state(state)
