"""Which code makes a result: a stage's module and everything it imports inside the project, function by function.

Comments, docstrings and formatting do not count. Imports inside functions do, and so does a module of the project that
is named in a string: measuring programs run in processes of their own. Plumbing does not: it moves bytes and carries
CONTRACT_VERSION, raised by hand when it starts to change results.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixbit.errors import MixbitError
from tasks.installed import in_place, installed
from tasks.memo import memoised
from tasks.place import ROOT

PARSINGS = 10
PACKAGES = ("mixbit", "policies", "tasks", "flows")
PLUMBING = frozenset(
    f"{package}.{name}"
    for package, names in {
        "mixbit": "checked_values config errors experiment faults http load marked_yaml place telemetry"
        " devices.known devices.remote devices.server",
        "tasks": "closure data installed memo place reason record stage stage_server store tracking",
    }.items()
    for name in names.split()
)
PROGRAM = re.compile(r"(mixbit|policies|tasks)(\.[a-z_0-9]+)+")
Functions = dict[str, str]
Parsed = dict[str, Any]


@dataclass(frozen=True)
class Closure:
    """`files`: file -> function -> digest; `packages`: installed packages that user code imports -> version."""

    files: dict[str, Functions]
    packages: dict[str, str]


@dataclass
class Snapshot:
    """What one run read of each file: code that is edited meanwhile is neither run nor keyed.

    Attributes:
        parsed: file -> what it said at the first look.
        modules: dotted names of the files.
        imported: all of them are imported as they were read; later edits wait for the next run.
        closures: those found so far, by the modules asked for.
    """

    parsed: dict[Path, Parsed] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    imported: bool = False
    closures: dict[tuple[str, ...], Closure] = field(default_factory=dict)

    def edited(self) -> list[str]:
        """Names of files that no longer say what was read."""
        return sorted(
            path.name for path, was in self.parsed.items() if not path.is_file() or _parse(path, path.name) != was
        )


def closure(modules: Iterable[str], search_path: Sequence[Path], snapshot: Snapshot) -> Closure:
    """The code behind `modules`, at any depth.

    Args:
        modules: dotted names; of the project, of a user's file on `search_path`, or of an installed package.
        search_path: folders with the user's own modules.
        snapshot: what this run has read so far; added to.

    Raises:
        MisuseError: a module that is nowhere to be found.
        MixbitError: code that can't be hashed: it does not parse, or imports by a computed name.
    """
    asked = tuple(modules)
    if asked not in snapshot.closures:
        snapshot.closures[asked] = _closure(asked, search_path, snapshot)
    return snapshot.closures[asked]


def _closure(modules: Sequence[str], search_path: Sequence[Path], snapshot: Snapshot) -> Closure:
    files: dict[str, Functions] = {}
    packages: dict[str, str] = {}
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in seen or name in PLUMBING:
            continue
        seen.add(name)
        path = _locate(name, search_path)
        if path is None:
            folder = in_place(name)
            if folder is not None and folder not in search_path:
                return _closure(modules, (*search_path, folder), snapshot)
            packages |= installed(name)
            continue
        label, mine = _label(path, search_path)
        if path not in snapshot.parsed:
            snapshot.parsed[path] = _parse(path, label)
            snapshot.modules.add(name)
        parsed = snapshot.parsed[path]
        if parsed["functions"]:
            files[label] = parsed["functions"]
        imported = [_absolute(entry, name, path.name == "__init__.py") for entry in parsed["imports"]]
        todo += [found for entry in imported for found in _candidates(entry, search_path, mine=mine)]
        todo += [parent for parent in _parents(name) if _locate(parent, search_path) is not None]
    return Closure(dict(sorted(files.items())), dict(sorted(packages.items())))


def find_module(name: str, search_path: Sequence[Path]) -> None:
    """Whether there is a module, in the project, the user's folders or an installed package; nothing is imported.

    Raises:
        MisuseError: there is none.
    """
    if _locate(name, search_path) is None:
        installed(name)


def _candidates(entry: str, search_path: Sequence[Path], *, mine: bool) -> list[str]:
    """`a.b:c` may be the module a.b.c or a name in a.b; only project and user files are followed."""
    module, _, name = entry.partition(":")
    inside = f"{module}.{name}" if name else module
    if name and _locate(inside, search_path) is not None:
        return [inside]
    if _locate(module, search_path) is not None:
        return [module]
    top = module.split(".")[0]
    outside = top not in PACKAGES and top not in sys.stdlib_module_names
    return [module] if outside and not mine else []


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _locate(name: str, search_path: Sequence[Path]) -> Path | None:
    roots = [ROOT] if name.split(".", maxsplit=1)[0] in PACKAGES else list(search_path)
    for root in roots:
        base = root.joinpath(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _label(path: Path, search_path: Sequence[Path]) -> tuple[str, bool]:
    """(name without the machine's folders, whether it is the project's own file)."""
    for package in PACKAGES:
        if path.is_relative_to(ROOT / package):
            return path.relative_to(ROOT).as_posix(), True
    folder = next(folder for folder in search_path if path.is_relative_to(folder))
    return path.relative_to(folder).as_posix(), False


def _absolute(entry: str, name: str, is_package: bool) -> str:
    dots = len(entry) - len(entry.lstrip("."))
    if not dots:
        return entry
    parts = name.split(".")
    base = parts[: len(parts) - dots + (1 if is_package else 0)]
    module, _, imported = entry.lstrip(".").partition(":")
    return ".".join([*base, *([module] if module else [])]) + (f":{imported}" if imported else "")


def _parse(path: Path, label: str) -> Parsed:
    parsed: Parsed = json.loads(memoised(path, "closure-2", lambda p: json.dumps(_read(p))))
    if "fault" in parsed:
        raise MixbitError(label, parsed["fault"], hint="Code that can't be hashed can't be cached")
    return parsed


def syntax_tree(content: bytes) -> ast.Module:
    """The code as a tree.

    CPython 3.11 counts the depth of all threads in one number: when Prefect's thread parses at the same moment, it
    fails for no fault of the code, and works when asked again.

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    for _ in range(PARSINGS - 1):
        try:
            return ast.parse(content)
        except SystemError:
            continue
    return ast.parse(content)


def _read(path: Path) -> Parsed:
    try:
        tree = syntax_tree(path.read_bytes())
    except SyntaxError as error:
        return {"fault": f"line {error.lineno}: does not parse: {error.msg}"}
    except ValueError as error:
        return {"fault": f"does not parse: {error}"}
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports += [f"{'.' * node.level}{node.module or ''}:{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PROGRAM.fullmatch(node.value):
            imports.append(node.value)
        if _imports_by_name(node):
            return {"fault": f"line {getattr(node, 'lineno', 1)}: imports by a computed name"}
    return {"functions": _functions(tree), "imports": sorted(set(imports))}


def _imports_by_name(node: ast.AST) -> bool:
    """Whether it reaches for `import_module` or `__import__`, whatever it calls importlib."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name):
            return name in {"import_module", "__import__"}
    return False


def _functions(tree: ast.Module) -> Functions:
    """Digest per top-level function, per method, and one for what stands between them."""
    _strip_docstrings(tree)
    found: dict[str, str] = {}
    rest: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            _add(found, node.name, node)
        elif isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))]
            for method in methods:
                _add(found, f"{node.name}.{method.name}", method)
            node.body = [part for part in node.body if part not in methods]
            _add(found, node.name, node)
        else:
            rest.append(node)
    if rest:
        _add(found, "<module>", ast.Module(body=rest, type_ignores=[]))
    return found


def _add(found: Functions, name: str, node: ast.AST) -> None:
    # A name defined twice (overload, property setter) counts with all its definitions.
    found[name] = hashlib.sha256((found.get(name, "") + spelled(node)).encode()).hexdigest()[:16]


def spelled(node: Any) -> str:
    """A syntax tree as text, without what is empty: later Pythons add fields that this code does not use."""
    if isinstance(node, list):
        return f"[{', '.join(map(spelled, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={spelled(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(fields)})"


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
