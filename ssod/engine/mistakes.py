"""Turning what a registry raises about a config into one line: what, where and how to mend it."""

import difflib
import importlib
import inspect
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ssod.errors import UserError


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


@contextmanager
def mistakes_in_config() -> Iterator[None]:
    """A block that builds from the config: what it names wrongly comes out as a UserError."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        name = error.filename or str(error)
        raise UserError(f"{name} does not exist: check the paths in the config") from error
    except (TypeError, KeyError) as error:
        message = _unknown_option(error) or _unknown_type(error)
        if message is None:
            raise
        raise UserError(message) from error


def _unknown_option(error: BaseException) -> str | None:
    """A line for an option that a type in the config does not take; None for any other error."""
    match = re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error))
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    built = next((each["obj_cls"] for each in reversed(frames) if "obj_cls" in each), None)
    if match is None or not callable(built):
        return None
    kinds = inspect.getmro(built) if inspect.isclass(built) else (built,)
    if match[1] not in [kind.__name__ for kind in kinds]:
        return None  # some call within it: not the config's fault
    options = sorted({name for kind in kinds for name in _options_of(kind)})
    shown = f" (it takes {', '.join(options)})" if len(options) <= 20 else ""
    name = kinds[0].__name__
    return f"config: {name} has no option {match[2]!r}{suggest(match[2], options)}{shown}"


def _options_of(kind: Any) -> list[str]:
    """The names of the arguments that a config can give to a class or a function."""
    constructor = vars(kind).get("__init__") if inspect.isclass(kind) else kind
    if not inspect.isfunction(constructor):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(constructor).parameters.values()
    given_by_mmengine = ("self", "runner", "dataset", "dataloader", "evaluator", "optimizer")
    return [p.name for p in parameters if p.kind in named and p.name not in given_by_mmengine]


def _unknown_type(error: BaseException) -> str | None:
    """A line for a `type` that no registry has; None for any other error."""
    match = re.search(r"(\w+) is not in the ([\w:-]+)::([\w -]+) registry", str(error))
    if match is None:
        return None
    return f"config: there is no {match[3]} of type {match[1]!r}{suggest(match[1], _types(match[3]))}"


def _types(kind: str) -> set[str]:
    """The names of all types that a registry of that kind knows, its parents' included."""
    registries = importlib.import_module("ssod.registry")
    names: set[str] = set()
    for registry in vars(registries).values():
        while getattr(registry, "name", None) == kind and hasattr(registry, "module_dict"):
            names |= set(registry.module_dict)
            registry = registry.parent
            if registry is None:
                break
    return names
