"""The installed package of the mesh."""

from importlib import metadata


def version() -> str:
    """Return the version of the installed package; `0` where it is not installed."""
    try:
        return metadata.version("agent-mesh")
    except metadata.PackageNotFoundError:
        return "0"
