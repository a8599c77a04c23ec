"""`mesh config`: the settings, and their origin."""

from typing import Annotated

import typer

from mesh.cli.framework.options import command, noun
from mesh.cli.framework.session import Session

app = noun("Show the settings, and their origin.")


@command(app, "show", example="MESH_LOG=kafka://broker:9092 mesh config show --origin")
def show(
    session: Session,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="show where each value comes from")] = False,
) -> None:
    """Show every setting.

    Precedence: flags, environment, mesh.toml, your own file, defaults. Secrets are never shown.
    """
    from mesh.settings import Settings, shown

    loaded = session.loaded
    rows = []
    for name, value in shown(loaded.settings):
        source = loaded.origins.get(name) or loaded.origins[name.partition(".")[0]]
        described = Settings.model_fields[name.partition(".")[0]].description or ""
        session.output.emit({"name": name, "value": value, "origin": source, "description": described})
        rows.append((name, value or "–", (source if origin else described, "dim")))
    session.output.table(("SETTING", "VALUE", "ORIGIN" if origin else "MEANING"), rows)
    if loaded.ignored:
        session.output.note((f"ignored, unknown settings: {', '.join(loaded.ignored)}", "dim"))
