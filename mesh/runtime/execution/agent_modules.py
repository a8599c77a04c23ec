"""Import the modules of agents from the folder of topics.yaml, beside all other modules of the process.

The folder is not first on `sys.path`, because a file in it may have the name of a module that the mesh imports
(`queue.py`, `redis.py`). A finder looks for top-level modules in the folder. It leaves out the names of the standard
library, of the mesh and of the libraries that the mesh requires. Any other name in the folder comes before installed
packages, as it does for a script. The folder is also the last entry of `sys.path`, for child processes that get a copy
of that list.

`sys.modules` has one place for each name. When another folder is used and has a module of the same name, the modules
of the folder before are set aside, and come back with their folder.
"""

import importlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import ModuleType
from typing import Final


class NameTaken(ImportError):
    """A module in the folder has the name of another module of this process. `file`: the one in the folder."""

    def __init__(self, file: str, name: str, other: str) -> None:
        super().__init__(f"`import {name}` means {other} in this process, not {file}", name=name)
        self.file = file


class _Folder:
    """A finder for `sys.meta_path`: top-level modules of the folder in use."""

    def __init__(self) -> None:
        self.path = ""
        self.owners: dict[str, str] = {}
        """Top-level module in `sys.modules` → the folder that it was loaded from."""
        self.aside: dict[str, dict[str, ModuleType]] = {}
        """Folder → modules that another folder has replaced in `sys.modules`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        spec = _spec_in(self.path, fullname) if path is None else None
        if spec is None or _wins(self.path, spec) is not None:
            return None
        self.owners[fullname] = self.path
        return spec


DISTRIBUTION = "agent-mesh"
PACKAGE: Final = str(Path(__file__).absolute().parents[2])
"""Folder of the package `mesh`."""
_EXAMPLES: Final = os.path.join(PACKAGE, "examples")
_LIBRARIES: Final = tuple(
    {os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_folder = _Folder()


def use(folder: str) -> None:
    """Import top-level modules from this folder from now on."""
    folder = os.path.realpath(folder)
    importlib.invalidate_caches()
    if _folder not in sys.meta_path:
        sys.meta_path.insert(sys.meta_path.index(PathFinder), _folder)
    if folder not in sys.path:
        sys.path.append(folder)
    _folder.path = folder
    for name, owner in list(_folder.owners.items()):
        if owner != folder and _spec_in(folder, name) is not None:
            del _folder.owners[name]
            _folder.aside.setdefault(owner, {}).update((full, sys.modules.pop(full)) for full in _modules_of(name))
    back = _folder.aside.pop(folder, {})
    sys.modules.update(back)
    _folder.owners.update((full, folder) for full in back if "." not in full)


def home(module: str) -> str:
    """Return the folder that a module was loaded from after `use`; empty for any other module."""
    return _folder.owners.get(module.partition(".")[0], "")


def load(module: str) -> ModuleType:
    """Import a module, from the folder in use if it has that module. Raises NameTaken, and what the module raises."""
    _refuse_other(module)
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        if error.name:
            _refuse_other(error.name)
        raise
    for name in {name for own in _own() for name in _imported_names(own)}:
        _refuse_other(name)
    return found


def is_own(file: str) -> bool:
    """Return whether a file is code of the mesh, not of an agent. The examples of the mesh are agents."""
    return file.startswith(PACKAGE + os.sep) and not file.startswith(_EXAMPLES + os.sep)


def is_library(file: str) -> bool:
    """Return whether a file is code of the standard library or of an installed package, or no file at all."""
    return file.startswith((*_LIBRARIES, "<")) and not file.startswith(_EXAMPLES + os.sep)


def user_frame(frames: Iterable[tuple[str, int]]) -> str:
    """Return `file:line` of the last frame in an agent's own code, else of the last one outside the mesh, else "".

    `frames`: file and line, the outermost first.
    """
    outside = [(file, line) for file, line in frames if not is_own(file)]
    own = [(file, line) for file, line in outside if not is_library(file)]
    return "{}:{}".format(*(own or outside)[-1]) if outside else ""


def _refuse_other(module: str) -> None:
    """Raise NameTaken if the folder has this module and an import of it gives another one."""
    name = module.partition(".")[0]
    spec = _spec_in(_folder.path, name)
    if spec is None:
        return
    loaded = sys.modules.get(name)
    other = _wins(_folder.path, spec) if loaded is None else None if _is_from(loaded, spec) else _place(loaded)
    if other is not None:
        raise NameTaken(_location(spec), name, other)


def _wins(folder: str, spec: ModuleSpec) -> str | None:
    """Return the module that takes precedence over one of the folder with the same name, or None."""
    name = spec.name
    if name in sys.stdlib_module_names:
        return f"{name!r} of the standard library"
    found = PathFinder.find_spec(name, [entry for entry in sys.path if os.path.realpath(entry) != folder])
    if found is None or found.origin is None:
        return None
    return found.origin if spec.origin is None or name in _libraries() else None


def _spec_in(folder: str, name: str) -> ModuleSpec | None:
    """Find a top-level module or package of a folder. A folder without `__init__.py` counts if it holds modules."""
    if not folder:
        return None
    spec = PathFinder.find_spec(name, [folder])
    if spec is None or spec.origin is not None:
        return spec
    place = os.path.join(folder, name)
    if not any(entry.endswith(".py") for entry in os.listdir(place)):
        return None
    spec.submodule_search_locations = [place]  # its own kind of list would look on `sys.path` again
    return spec


def _location(spec: ModuleSpec) -> str:
    return os.path.realpath(spec.origin or next(iter(spec.submodule_search_locations or ())))


def _is_from(module: ModuleType, spec: ModuleSpec) -> bool:
    return _location(spec) in map(os.path.realpath, (getattr(module, "__file__", "") or "", *_path(module)))


def _place(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or next(iter(_path(module)), f"{module.__name__!r} of the interpreter")


def _path(module: ModuleType) -> Iterator[str]:
    yield from getattr(module, "__path__", ())


def _modules_of(name: str) -> list[str]:
    return [full for full in sys.modules if full == name or full.startswith(f"{name}.")]


def _own() -> list[ModuleType]:
    """Return the modules loaded from the folder in use."""
    tops = [name for name, owner in _folder.owners.items() if owner == _folder.path]
    return [sys.modules[full] for name in tops for full in _modules_of(name)]


def _imported_names(module: ModuleType) -> Iterator[str]:
    """Yield the top-level names of the modules that a module has imported."""
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            yield value.__name__.partition(".")[0]


@cache
def _libraries() -> frozenset[str]:
    """Return the top-level modules of the mesh and of its installed libraries, optional ones included."""
    homes = packages_distributions()
    found: set[str] = set()
    coming = [DISTRIBUTION]
    while coming:
        name = coming.pop()
        if name in found:
            continue
        found.add(name)
        try:
            coming += [_normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # optional, and not installed
    return frozenset(top for top, names in homes.items() if found.intersection(map(_normal, names)))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
