"""`mesh version`: the versions of the mesh, of Python and of the libraries, and the form of the core."""

import platform
from importlib.metadata import PackageNotFoundError, version

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session
from mesh.core.state.form import form

app = verb()
LIBRARIES = ("aiokafka", "redis", "pydantic", "orjson", "typer", "rich")


def number() -> str:
    """The version of the installed package; `0+source` for a source tree without installation."""
    return installed("agent-mesh") or "0+source"


def text() -> str:
    """The line of `mesh --version`."""
    return f"mesh {number()}"


@command(app, "version", example="mesh version --json")
def show(session: Session) -> None:
    """Show the version of the mesh, of Python and of the libraries, and whether the core is compiled."""
    used = {name: installed(name) for name in LIBRARIES}
    session.output.emit({"mesh": number(), "core": form(), "python": platform.python_version(), "libraries": used})
    session.output.print(f"{text()}  core: {form()}")
    found = "  ".join(f"{name} {value}" for name, value in used.items() if value)
    session.output.print((f"Python {platform.python_version()}  {found}", "dim"))


def installed(package: str) -> str | None:
    """The version of an installed package; None if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
