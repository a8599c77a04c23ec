"""Every setting of a process, merged once: flags > environment > mesh.toml > defaults. Unset is not default.

Each source says only what was set in it; `load` remembers where each value came from (`mesh config show --origin`).
Environment names are `MESH_` and the field's name, nested by `__` (`MESH_KAFKA__SECURITY_PROTOCOL`); a secret may
come from a file named by `…_FILE`. `REDIS_URL` is honoured for the board. mesh.toml is searched upward from the
working directory to the root of the git checkout.
"""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mesh.core.errors import ConfigInvalid

ENV_PREFIX = "MESH_"
FILE_NAME = "mesh.toml"
EMBEDDED = "sqlite:.mesh/mesh.db"


class Settings(BaseModel):
    """See the module. Times in milliseconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    log: str = Field(EMBEDDED, description="where the log is: sqlite:PATH or kafka://HOST:PORT[,HOST:PORT]")
    board: str = Field("", description="where the board is: sqlite:PATH or redis://HOST:PORT/DB; unset: the log's file")
    topology: str = Field("topics.yaml", description="the mesh itself: topics, agents, limits")
    kafka: dict[str, str] = Field(default_factory=dict, description="TLS and SASL settings, with aiokafka's names")
    synchronous: Literal["NORMAL", "FULL"] = Field(
        "NORMAL", description="embedded file: NORMAL survives kill -9, FULL also power loss"
    )
    append_timeout_ms: int = Field(10_000, gt=0, description="the log must acknowledge an append within this")
    session_timeout_ms: int = Field(10_000, ge=1_000, description="a silent member of a group is replaced after this")
    board_timeout_ms: int = Field(250, gt=0, description="a board call fails after this")
    drain_timeout_ms: int = Field(10_000, ge=0, description="how long a stopping process waits for running tasks")
    poll_records_max: int = Field(500, gt=0, le=100_000, description="records taken in one step")
    record_bytes_max: int = Field(1_048_576, gt=0, description="largest record the log takes")


class Loaded(NamedTuple):
    """Settings, and for each field the source it came from (`default`, `mesh.toml`, `MESH_LOG`, `--log`)."""

    settings: Settings
    origins: Mapping[str, str]


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Loaded:
    """Merge all sources. `flags` that are None count as unset. Raises ConfigInvalid naming the key and its source."""
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for values, origin_of in (_from_file(directory or Path.cwd()), _from_environ(environ), _from_flags(flags or {})):
        for name, value in values.items():
            if isinstance(value, dict) and isinstance(merged.get(name), dict):
                merged[name] = {**merged[name], **value}
            else:
                merged[name] = value
            origins[name] = origin_of(name)
    unknown = sorted(set(merged) - set(Settings.model_fields))
    if unknown:
        near = get_close_matches(unknown[0], Settings.model_fields, n=1)
        raise ConfigInvalid(
            f"unknown setting {unknown[0]!r}",
            where=origins[unknown[0]],
            expected=", ".join(Settings.model_fields),
            remedy=f"Did you mean {near[0]!r}?" if near else "`mesh config show` lists all settings",
        )
    try:
        return Loaded(Settings(**merged), origins)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise ConfigInvalid(
            f"setting {name!r}: {first['msg']}", where=origins.get(name, "?"), got=repr(first["input"])[:80]
        ) from error


def _from_flags(flags: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    return {k: v for k, v in flags.items() if v is not None}, lambda name: f"--{name.replace('_', '-')}"


def _from_environ(environ: Mapping[str, str]) -> tuple[dict[str, Any], Any]:
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    if environ.get("REDIS_URL"):
        values["board"], names["board"] = environ["REDIS_URL"], "REDIS_URL"
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable in ("MESH_LIVE",):
            continue
        name, text = variable[len(ENV_PREFIX) :].lower(), environ[variable]
        if name.endswith("_file"):
            name = name[: -len("_file")]
            try:
                text = Path(text).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigInvalid(f"the file cannot be read: {error.strerror}", where=variable, got=text) from error
        outer, _, inner = name.partition("__")
        if inner:
            values.setdefault(outer, {})[inner] = text
        else:
            values[outer] = text
        names[outer] = variable
    return values, names.get


def _from_file(directory: Path) -> tuple[dict[str, Any], Any]:
    for folder in (directory, *directory.parents):
        file = folder / FILE_NAME
        if file.is_file():
            try:
                return tomllib.loads(file.read_text(encoding="utf-8")), lambda _, file=file: str(file)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigInvalid(f"not valid TOML: {error}", where=str(file)) from error
        if (folder / ".git").exists():
            break
    return {}, lambda _: FILE_NAME
