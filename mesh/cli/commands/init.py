"""`mesh init`: write a small project that works, as a beginning for your own."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer

from mesh.cli.commands.version import number
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session
from mesh.core.errors import ConfigInvalid, NotAccepted

FILES: Final = {
    "topics.yaml": "which agent handles which type of event, and within which limits",
    "tickets.py": "two agents and the payloads that they exchange",
    "test_tickets.py": "a test on the real mesh, with a log in a temporary file",
    "requirements.txt": "what to install",
    "Dockerfile": "an image with the mesh and these agents",
    ".gitignore": "what the mesh and Python leave behind",
}
"""Name → what the file is for. Their texts lie in mesh/cli/project_template."""
TICKET: Final = """'{"id": "t-1", "text": "a refund"}'"""
NEXT: Final = (
    ("mesh check", "do topics.yaml and the code agree?"),
    ("python -m pytest", "run the test"),
    ("mesh up", "start the mesh; Ctrl-C ends it. In a second terminal:"),
    (f"mesh publish ticket.opened {TICKET} --wait", ""),
    ("mesh run show t-1", "what happened, step by step"),
)
NAME_CHARS_MAX: Final = 64
app = verb()


@command(app, "init", example="mesh init tickets")
def init(
    session: Session,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="the folder, created if it is missing; default: this one")
    ] = ".",
) -> None:
    """Write a small project that runs as it is.

    It has topics.yaml, two agents, a test, requirements.txt, Dockerfile and .gitignore.

    No file is overwritten: if one of them exists, nothing is written, and the command names it.
    """
    where = Path(folder)
    taken = [name for name in FILES if (where / name).exists() or (where / name).is_symlink()]
    if taken:
        what = f"files exist already: {', '.join(taken)}; nothing was written"
        raise NotAccepted(what, where=folder, remedy="Name an empty folder: `mesh init FOLDER`")
    texts = _texts(where)
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with (where / name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except OSError as error:
        raise ConfigInvalid(
            f"the project cannot be written: {error.strerror}", where=str(error.filename or folder)
        ) from error
    output = session.output
    output.emit({"folder": str(where), "files": list(FILES)})
    for name, meaning in FILES.items():
        output.print(("+ ", "green"), f"{where / name}".ljust(24), (f"  {meaning}", "dim"))
    output.note()
    output.note(("next", "bold"))
    if where.resolve() != Path.cwd():
        output.note(f"  cd {folder}")
    for typed, meaning in NEXT:
        output.note(f"  {typed:<20}", (meaning and f"  # {meaning}", "dim"))


def _texts(folder: Path) -> dict[str, str]:
    template, version = files("mesh.cli") / "project_template", number()
    words = {"{name}": _mesh_name(folder.resolve().name), "{version}": "" if "+" in version else f"=={version}"}
    texts = {name: (template / name.lstrip(".")).read_text(encoding="utf-8") for name in FILES}
    for word, value in words.items():
        texts = {name: text.replace(word, value) for name, text in texts.items()}
    return texts


def _mesh_name(folder: str) -> str:
    """The name of a folder as the name of a mesh, and of an image."""
    return re.sub(r"[^a-z0-9]+", "-", folder.lower(), flags=re.ASCII)[:NAME_CHARS_MAX].strip("-") or "tickets"
