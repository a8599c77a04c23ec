#!/usr/bin/env python3
"""Compile the hot modules of the core with mypyc, from the same source. `[tool.mesh.compiled]` in pyproject.toml lists
them.

    scripts/compiled.py make      compile them beside their sources, where Python prefers them
    scripts/compiled.py remove    remove what was compiled: pure Python runs again

Only this needs the packages mypy and setuptools, and a C compiler. What is compiled runs without them.
"""

import argparse
import os
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LIBRARY: Final = "mesh.compiled"
"""All compiled code is in one library, `mesh/compiled__mypyc.…`. The file of each module only leads to it."""
OPTIMIZATION: Final = "2"
"""Level of the C compiler. Level 3 takes longer and gives nothing here."""


def listed() -> list[str]:
    """Return the names of the modules to compile. Exits if one has no source."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        names: list[str] = tomllib.load(file)["tool"]["mesh"]["compiled"]["modules"]
    for name in names:
        if not source_of(name).is_file():
            sys.exit(f"compiled: pyproject.toml lists {name}, which is no module; correct [tool.mesh.compiled]")
    return names


def source_of(name: str) -> Path:
    """Return the source of a module."""
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def compiled(folder: Path = ROOT) -> Iterable[Path]:
    """Return the files that were compiled into a folder."""
    return sorted(path for pattern in ("*.so", "*.pyd") for path in (folder / "mesh").rglob(pattern))


def remove() -> None:
    """Remove what lies beside the sources."""
    for path in compiled():
        path.unlink()


def compile_into(folder: Path) -> list[Path]:
    """Compile all listed modules into a folder, with the folders of their packages. Exits if one does not compile."""
    from mypyc.build import mypycify  # not installed where only `remove` is called
    from setuptools import Distribution

    os.chdir(ROOT)  # mypyc names modules by their relative paths
    work = ROOT / "build" / "compiled"
    sources = [str(source_of(name).relative_to(ROOT)) for name in listed()]
    extensions = mypycify(
        sources, group_name=LIBRARY, opt_level=OPTIMIZATION, debug_level="0", target_dir=str(work / "c")
    )
    command = Distribution({"name": "mesh", "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(folder), str(work / "objects")
    command.ensure_finalized()
    command.run()
    return list(compiled(folder))


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "remove"))
    if parser.parse_args().action == "remove":
        remove()
        return
    remove()  # mypyc reads sources, but Python would import the older ones
    started_ns = time.time_ns()
    made = compile_into(ROOT)
    for path in made:
        os.utime(
            path, ns=(started_ns, started_ns)
        )  # an edit of a source since then makes it older: mesh.app.compiled_core
    print(f"compiled: {len(listed())} modules, {sum(path.stat().st_size for path in made) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
