"""The one dynamic import: methods by file name, user code as `module:callable`."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mixbit.errors import MisuseError, MixbitError

NOT_OURS = frozenset({*sys.stdlib_module_names, "__main__"})


def load_method(folder: str, name: str) -> ModuleType:
    """Import the method `name` of a folder such as `policies.indicators`.

    Raises:
        MisuseError: no file of that name in the folder.
    """
    if (loaded := sys.modules.get(f"{folder}.{name}")) is not None:
        return loaded  # a plan asks for the same few files at every cell
    names = method_names(folder)
    if name not in names:
        raise MisuseError(folder, "unknown method", expected=" or ".join(names), got=name)
    return importlib.import_module(f"{folder}.{name}")


def method_names(folder: str) -> list[str]:
    """Names of the methods in a folder: its files."""
    places = importlib.import_module(folder).__path__
    return sorted(path.stem for place in places for path in Path(place).glob("[a-z]*.py"))


def check_reference(reference: str) -> tuple[str, str]:
    """(module, callable) of a reference, nothing imported.

    The standard library is refused: `os:system` must never be called to find out that it makes no model.

    Raises:
        MisuseError: not of the form `module:callable`, or from the standard library.
    """
    module_name, _, attribute = reference.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise MisuseError(reference, "not a reference", expected="module:callable", got=repr(reference))
    if module_name.split(".")[0] in NOT_OURS:
        raise _standard_library(reference)
    return module_name, attribute


def load_callable(reference: str, search_path: Sequence[Path]) -> Any:
    """Import `module:callable` from the user's folders or an installed package.

    The folders stay at the end of `sys.path`, so that the user's code may import its neighbours when it is called.

    Raises:
        MisuseError: not of the form `module:callable`, from the standard library, no such module or name, not callable.
        MixbitError: the module's own code failed while importing.
    """
    module_name, attribute = check_reference(reference)
    module = _import(module_name, reference, search_path)
    found = getattr(module, attribute, None)
    if found is None:
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=1)
        hint = f"Did you mean {module_name}:{near[0]}?" if near else "Check the name after the colon"
        raise MisuseError(reference, f"no {attribute} in module {module_name}", hint=hint)
    if not callable(found):
        raise MisuseError(reference, "", expected="a callable", got=type(found).__name__)
    if inspect.isroutine(found) and str(getattr(found, "__module__", "")).split(".")[0] in NOT_OURS:
        raise _standard_library(reference)
    return found


def load_module(name: str, search_path: Sequence[Path]) -> ModuleType:
    """Import a module of the project or of the user's folders.

    Raises:
        MisuseError: no such module.
        MixbitError: the module's own code failed while importing.
    """
    return sys.modules.get(name) or _import(name, name, search_path)


def _standard_library(reference: str) -> MisuseError:
    expected = "module:callable of yours or of an installed package"
    return MisuseError(
        reference, "the standard library makes no models, losses or data", expected=expected, got=reference
    )


def _import(module_name: str, reference: str, search_path: Sequence[Path]) -> ModuleType:
    added = [str(folder) for folder in search_path if str(folder) not in sys.path]
    sys.path[:0] = added
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _import_fault(module_name, reference, search_path, error) from error
    finally:
        for folder in added:
            sys.path.remove(folder)
        sys.path += added


def _import_fault(
    module_name: str, reference: str, search_path: Sequence[Path], error: BaseException
) -> MisuseError | MixbitError:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and (module_name == missing or module_name.startswith(f"{missing}.")):
        where = ", ".join(str(folder) for folder in search_path)
        return MisuseError(reference, f"no module {missing}", hint=f"Looked in {where} and the installed packages")
    if missing is not None:
        hint = f"Install {missing.split('.')[0]} into this environment"
        return MisuseError(reference, f"{module_name} imports {missing}, which is not installed", hint=hint)
    return MixbitError(reference, f"importing {module_name} failed: {type(error).__name__}: {error}")
