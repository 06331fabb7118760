"""Installed packages behind user code: the version that counts, or the folder where the code itself does."""

import functools
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mixbit.errors import MisuseError


def installed(name: str) -> dict[str, str]:
    """The package of a module -> its version.

    Raises:
        MisuseError: there is none, or it belongs to the standard library.
    """
    top = name.split(".", maxsplit=1)[0]
    if top in sys.stdlib_module_names:
        raise MisuseError(name, "the standard library makes no models, losses or data")
    for distribution in _distributions(top):
        try:
            return {distribution: importlib.metadata.version(distribution)}
        except importlib.metadata.PackageNotFoundError:
            continue
    raise MisuseError(name, "no such module", hint="Put the file beside the experiment, or install its package")


def in_place(name: str) -> Path | None:
    """The folder of a package that is installed in place (pip's --editable): it changes, its version does not."""
    top = name.partition(".")[0]
    for distribution in _distributions(top):
        try:
            origin = json.loads(importlib.metadata.distribution(distribution).read_text("direct_url.json") or "{}")
        except importlib.metadata.PackageNotFoundError:
            continue
        spec = importlib.util.find_spec(top) if origin.get("dir_info", {}).get("editable") else None
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]
        return None
    return None


def _distributions(top: str) -> Iterator[str]:
    """Names under which the package of a module may be installed; most often the module's own."""
    yield top
    yield from _by_module().get(top, ())


@functools.cache
def _by_module() -> Mapping[str, list[str]]:
    """Reads every installed package: longer than all the rest of a plan."""
    return importlib.metadata.packages_distributions()
