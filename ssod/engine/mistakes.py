"""Turning what a registry raises about a config into one line: what, where and how to mend it."""

import difflib
import importlib
import importlib.util
import inspect
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ssod.errors import UserError


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known name, or nothing."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    near = near or [each for each in names if sorted(each) == sorted(name)]  # letters swapped in a short one
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
    except ImportError as error:
        module = _not_installed(error)
        if module is None:
            raise
        raise UserError(
            f"config: what it names needs {module}, which is not here: pip install {module}"
        ) from error
    except (TypeError, KeyError) as error:
        message = _unknown_option(error) or _unknown_type(error)
        if message is None:
            raise
        raise UserError(message) from error


def _not_installed(error: ImportError) -> str | None:
    """The package that is missing; None where an import fails of something else."""
    # mmengine's back ends raise another ImportError, which names none, while they handle the first.
    name = error.name or getattr(error.__context__, "name", None) or ""
    package = name.partition(".")[0]
    return package if package and importlib.util.find_spec(package) is None else None


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
    found: list[Any] = []
    for value in vars(registries).values():
        found += value if isinstance(value, list) else [value]
    for registry in found:
        while getattr(registry, "name", None) == kind and hasattr(registry, "module_dict"):
            names |= set(registry.module_dict)
            registry = registry.parent
            if registry is None:
                break
    return names
