"""The laws of the house (ARCHITECTURE.md), read from the source. `offences(root)` finds every breach.

No module of the tree is imported, so a broken tree can be checked too. Change a wrong law in one of the tables here or
in house_rooms.py, in a commit that says why.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.house_read_only import writing_uses
from tests.house_rooms import (
    BACKENDS,
    HOMES,
    MAY_IMPORT,
    READ_ONLY,
    ROOM_FILES,
    ROOM_FILES_MAX,
    SHARED_CLASSES,
    TESTED_LAYERS,
)

FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 60
PUBLIC_NAMES_MAX: Final = 20

PURE_STDLIB: Final = frozenset(
    {
        *("__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses"),
        "datetime",
        *("decimal", "difflib", "enum", "fractions", "functools", "graphlib", "hashlib", "heapq", "inspect"),
        *("itertools", "json", "math", "operator", "re", "string", "struct", "textwrap", "traceback", "types"),
        "typing",
    }
)
PURE_MEMBERS: Final = frozenset({("sys", "intern")})
"""Pure members of modules that are not pure."""
FREE_LIBRARIES: Final = frozenset({"orjson", "pydantic"})
"""The vocabulary of payloads: any file may import them."""
CORE_LIBRARIES: Final = FREE_LIBRARIES | {"pydantic_core", "yaml"}

VAGUE_NAMES: Final = frozenset(
    {"base", "common", "helper", "helpers", "manager", "managers", "misc", "shared", "util", "utils", "utilities"}
)
NAMED_MANAGER: Final = "checkpoint_manager"
"""A term of the vocabulary, though it holds a vague word."""
CLOCKS: Final = frozenset({"now", "utcnow", "today"})
IMPURE_CALLS: Final = frozenset({"hash", "open", "input", "print", "eval", "exec"})
"""I/O, code from text, and values that differ between processes: the hash of a text does."""
DROPPABLE: Final = frozenset({"create_task", "ensure_future", "run_coroutine_threadsafe", "run_in_executor"})


class Offence(NamedTuple):
    """A breach of a law at a line. `law` is a short name, `remedy` says what to do instead."""

    path: str
    line: int
    law: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.law}: {self.what}: {self.remedy}"


class Module(NamedTuple):
    """A parsed file: path from the root with `/`, dotted name, syntax tree."""

    path: str
    name: str
    tree: ast.Module


class Import(NamedTuple):
    """`target` is the dotted module; for `from a import b` also `a.b`, since b may be a module."""

    line: int
    target: str
    member: str


def offences(root: Path) -> list[Offence]:
    """Find every breach in the tree at `root`, sorted by path and line."""
    found: list[Offence] = []
    modules: list[Module] = []
    for path in _files(root):
        place = path.relative_to(root).as_posix()
        text = path.read_text("utf-8")
        found += _size(place, text)
        found += _names(place)
        if path.suffix != ".py":
            continue
        tree = ast.parse(text, place)
        name = place.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        module = Module(place, name, tree)
        found += _functions(module)
        if place.startswith(("mesh/", "agents/")):
            modules.append(module)
            found += _swallowed(module)
            found += _dropped_tasks(module)
            found += _homes(module)
    found += _rooms(modules)
    found += _classes(modules)
    public = _public(modules, found)
    for module in modules:
        if module.path.startswith("agents/"):
            found += _agent_imports(module, public)
        else:
            found += _directions(module)
            found += _untested(module, root)
        if module.path.startswith("mesh/core/"):
            found += _impure(module)
        if module.path.startswith(READ_ONLY):
            found += _writes(module)
    return sorted(set(found))


def _files(root: Path) -> Iterator[Path]:
    for room in ("mesh", "agents", "bench", "scripts", "tests"):
        for path in sorted((root / room).rglob("*")):
            if path.is_file() and (path.suffix in (".py", ".lua", ".sh") or (room == "scripts" and not path.suffix)):
                yield path


def _size(place: str, text: str) -> Iterator[Offence]:
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        yield Offence(
            place,
            FILE_LINES_MAX + 1,
            "file size",
            f"{lines} lines, at most {FILE_LINES_MAX}",
            "split it by what it does",
        )


def _names(place: str) -> Iterator[Offence]:
    for part in place.split("/")[1:]:
        for word in part.partition(".")[0].lower().replace(NAMED_MANAGER, "").split("_"):
            if word in VAGUE_NAMES:
                yield Offence(place, 1, "vague name", f"{word!r} names nothing", "name it for what it is or does")


def _functions(module: Module) -> Iterator[Offence]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > FUNCTION_LINES_MAX:
                what = f"{node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"
                yield Offence(module.path, node.lineno, "function size", what, "give its parts names of their own")


def _imports(module: Module) -> Iterator[Import]:
    package = module.name if module.path.endswith("/__init__.py") else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            target = node.module or ""
            if node.level:
                parts = package.split(".")
                target = ".".join([*parts[: len(parts) - node.level + 1], *([target] if target else [])])
            for alias in node.names:
                yield Import(node.lineno, target, alias.name)


def _within(name: str, places: Sequence[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _place_of(name: str) -> str | None:
    """Return the closest entry of MAY_IMPORT for a module, or None if it is in no room."""
    found = [place for place in MAY_IMPORT if place != "mesh" and _within(name, [place.removesuffix(".*")])]
    return max(found, key=len) if found else ("mesh" if name == "mesh" else None)


def _allowed(target: str, place: str) -> bool:
    at = _place_of(target)
    return any(at == one if one.endswith(".*") else _within(target, [one]) for one in (place, *MAY_IMPORT[place]))


def _directions(module: Module) -> Iterator[Offence]:
    place = _place_of(module.name)
    if place is None:
        what = f"{module.name} belongs to no room"
        yield Offence(module.path, 1, "rooms", what, "move it into a layer, or list its place in house_rooms.py")
        return
    own = ".".join(module.name.split(".")[:3])
    for found in _imports(module):
        target = f"{found.target}.{found.member}" if found.member else found.target
        if not _within(target, ["mesh", "agents"]):
            continue
        if not _allowed(target, place):
            what = f"{place} imports {target}"
            allowed = ", ".join(MAY_IMPORT[place])
            yield Offence(module.path, found.line, "direction", what, f"it may import {allowed}; hand the rest in")
        elif place == "mesh.services" and _within(target, ["mesh.services"]) and not _within(target, [own]):
            what = f"{module.name} imports the process {target}"
            yield Offence(module.path, found.line, "processes apart", what, "let them talk through the log")
        elif own in BACKENDS and _within(target, [b for b in BACKENDS if b != own]):
            what = f"{module.name} imports another backend, {target}"
            yield Offence(module.path, found.line, "processes apart", what, "move what both need into mesh.core")


def _rooms(modules: Sequence[Module]) -> Iterator[Offence]:
    """Find rooms with too many files, and file names that a layer has twice."""
    rooms: dict[str, list[str]] = {}
    named: dict[tuple[str, str], str] = {}
    for module in modules:
        folder, _, file = module.path.rpartition("/")
        if not folder.startswith("mesh") or file == "__init__.py":
            continue
        files = rooms.setdefault(folder, [])
        files.append(file)
        most = ROOM_FILES.get(folder, ROOM_FILES_MAX)
        if len(files) == most + 1:
            what = f"{folder} has more than {most} files"
            yield Offence(module.path, 1, "room size", what, "give what belongs together a room of its own")
        own = ".".join(module.name.split(".")[:3])
        layer = own if own in BACKENDS else ".".join(module.name.split(".")[:2])
        other = named.setdefault((layer, file), module.path)
        if other != module.path and folder != "mesh":
            what = f"{layer} has this name twice, also {other}"
            yield Offence(module.path, 1, "one stem", what, "name both for what they are")


def _classes(modules: Sequence[Module]) -> Iterator[Offence]:
    """A name of a public class means one class in the whole package."""
    defined: dict[str, str] = {}
    for module in modules:
        for node in module.tree.body if module.path.startswith("mesh/") else ():
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_") or node.name in SHARED_CLASSES:
                continue
            other = defined.setdefault(node.name, module.path)
            if other != module.path:
                what = f"class {node.name} is defined in {other}, too"
                yield Offence(module.path, node.lineno, "one class name", what, "name each for what it is")


def _homes(module: Module) -> Iterator[Offence]:
    for found in _imports(module):
        library = found.target.partition(".")[0]
        known = sys.stdlib_module_names
        if library in ("mesh", "agents", *FREE_LIBRARIES) or (library in known and library not in HOMES):
            continue
        homes = HOMES.get(library)
        if homes is None:
            what = f"{library} has no home"
            yield Offence(
                module.path, found.line, "one home", what, "list in house_rooms.py the one file that imports it"
            )
        elif not any(module.path == h or module.path.startswith((f"{h}/", f"{h}.", f"{h}_")) for h in homes):
            what = f"{library} is imported outside of its home"
            yield Offence(module.path, found.line, "one home", what, f"go through {' or '.join(homes)}")


def _impure(module: Module) -> Iterator[Offence]:
    def offence(node: ast.AST, what: str, remedy: str) -> Offence:
        return Offence(module.path, getattr(node, "lineno", 1), "pure core", what, remedy)

    for found in _imports(module):
        library = found.target.partition(".")[0]
        if (library, found.member) in PURE_MEMBERS:
            continue
        if library in sys.stdlib_module_names and library not in PURE_STDLIB:
            yield Offence(
                module.path, found.line, "pure core", f"core imports {library}", "hand its answer in as a value"
            )
        elif library not in PURE_STDLIB | CORE_LIBRARIES | {"mesh"}:
            yield Offence(module.path, found.line, "pure core", f"core imports {library}", "wrap it in mesh/adapters")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield offence(node, "core waits", "let a service wait and hand in what came")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
                yield offence(node, f"core asks a clock: .{node.func.attr}()", "time is event.at_ms")
            elif isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                yield offence(node, f"core calls {node.func.id}()", "take what it would answer as an argument")


def _writes(module: Module) -> Iterator[Offence]:
    for line, name in writing_uses(module.tree):
        what, remedy = f"{name} in a room that only reads", "take a `ReadLog`; mesh/app writes, to a private log"
        yield Offence(module.path, line, "replay reads", what, remedy)


def _swallowed(module: Module) -> Iterator[Offence]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield Offence(module.path, node.lineno, "nothing swallowed", "bare except", "name what you expect")
            elif _is_wide(node.type) and all(_says_nothing(statement) for statement in node.body):
                what = f"except {ast.unparse(node.type)} and nothing said"
                yield Offence(module.path, node.lineno, "nothing swallowed", what, "answer it, note it or raise it")
        elif (
            isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and any(map(_is_wide, node.args))
        ):
            what = "suppress(Exception)"
            yield Offence(module.path, node.lineno, "nothing swallowed", what, "name what you expect")


def _is_wide(kind: ast.expr) -> bool:
    members = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(isinstance(m, ast.Name) and m.id in ("Exception", "BaseException") for m in members)


def _says_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    empty_return = isinstance(statement, ast.Return) and (
        statement.value is None or isinstance(statement.value, ast.Constant)
    )
    return empty_return or isinstance(statement, ast.Pass | ast.Continue | ast.Break)


def _dropped_tasks(module: Module) -> Iterator[Offence]:
    groups = {
        item.optional_vars.id
        for node in ast.walk(module.tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and "TaskGroup" in ast.unparse(item.context_expr)
    }
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            continue
        function = node.value.func
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        in_group = isinstance(function, ast.Attribute) and ast.unparse(function.value) in groups
        if called in DROPPABLE and not in_group:
            what = f"the result of {called} is dropped"
            remedy = "start it in a TaskGroup, or keep the task and look at how it ended"
            yield Offence(module.path, node.lineno, "no task dropped", what, remedy)


def _public(modules: Sequence[Module], found: list[Offence]) -> frozenset[str] | None:
    """Return the names that mesh/__init__.py lists, or None if it lists none."""
    for module in modules:
        if module.path != "mesh/__init__.py":
            continue
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                if len(names) > PUBLIC_NAMES_MAX:
                    what = f"{len(names)} public names, at most {PUBLIC_NAMES_MAX}"
                    found.append(
                        Offence(module.path, node.lineno, "few names", what, "let one go, or keep this one in")
                    )
                return frozenset(names)
        found.append(Offence(module.path, 1, "few names", "mesh has no __all__", "list the public names"))
    return None


def _agent_imports(module: Module, public: frozenset[str] | None) -> Iterator[Offence]:
    desk = ".".join(module.name.split(".")[:2])
    for found in _imports(module):
        if found.target == "mesh":
            if found.member and public is not None and found.member not in public:
                what = f"{found.member} is no public name of mesh"
                yield Offence(module.path, found.line, "agents apart", what, "import what mesh/__init__.py lists")
        elif _within(found.target, ["mesh"]) and found.target not in ("mesh.errors", "mesh.faust"):
            what = f"an agent imports {found.target}"
            yield Offence(module.path, found.line, "agents apart", what, "import `mesh`, `mesh.errors`, `mesh.faust`")
        elif _within(found.target, ["agents"]) and found.target != f"{desk}.events":
            what = f"an agent imports {found.target}"
            yield Offence(
                module.path, found.line, "agents apart", what, f"import only {desk}.events; topics.yaml wires"
            )


def _untested(module: Module, root: Path) -> Iterator[Offence]:
    _, _, inside = module.name.partition(".")
    room, *folders = inside.split(".")[:-1] or [""]
    name = inside.rpartition(".")[2]
    if room not in TESTED_LAYERS or module.path.endswith("__init__.py") or not _does_something(module.tree):
        return
    near = "/".join(["tests", room, *folders, f"test_{name}.py"])
    live = f"tests/live/test_{'_'.join([*folders, name])}.py"
    if not (root / near).is_file() and not (root / live).is_file():
        what = f"it has no test file {near}"
        yield Offence(module.path, 1, "tests beside", what, f"write it, or {live} if only a real server can tell")


def _does_something(tree: ast.Module) -> bool:
    """Tell whether a function has a body: declarations (protocols, tables, re-exports) are tested by their users."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                    return True
    return False
