"""Every setting of a process. Precedence: flags, environment, mesh.toml, the user's file, defaults.

Unset is not default: each source holds only values that were set in it, and `load` remembers the origin of each value
(`mesh config show --origin`). Environment names are `MESH_` and the field's name, nested by `__`
(`MESH_KAFKA__SECURITY_PROTOCOL`); a secret may come from a file named by `…_FILE`. `REDIS_URL` is honoured for the
board. mesh.toml is searched upward from the working directory to the root of the git checkout; the user's own file is
`$XDG_CONFIG_HOME/mesh/mesh.toml`.

Every path is absolute once it is loaded, since an agent may change the working directory. A relative path in a file
starts at the folder of that file, one in a flag or in the environment at the working directory. A default starts at the
project: the nearest folder upward with mesh.toml or topics.yaml. Paths are written as in a shell (`~`, `~user`,
`$NAME`, `${NAME}`) or as `file:///…`.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote

from platformdirs import user_config_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mesh.core.errors import ConfigInvalid
from mesh.core.protocol.record import RECORD_BYTES_MAX, RECORD_BYTES_MIN
from mesh.core.redaction import mask, mask_address
from mesh.core.suggest import did_you_mean, nearest
from mesh.core.text_encoding import decode_text, text_flaw
from mesh.core.topology.units import SIZE_BYTES_MAX

ENV_PREFIX = "MESH_"
FILE_NAME, TOPOLOGY_NAME = "mesh.toml", "topics.yaml"
EMBEDDED = "sqlite:.mesh/mesh.db"
DEFAULT = "default"
SECRET_CHARS_MAX: Final = 65_536
INTEGER_MAX: Final = 2**31 - 1
"""The largest number that brokers, drivers and clocks take; as milliseconds 24 days."""
KAFKA_PATHS: Final = ("ssl_cafile", "ssl_capath", "ssl_certfile", "ssl_keyfile")
"""Settings below `kafka` that are paths."""
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)
_FILE_URL: Final = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
_SECRET_WORDS = ("password", "secret", "token", "credential", "_key")


class Settings(BaseModel):
    """The settings of a process. Times in milliseconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    log: str = Field(
        EMBEDDED, description="where the log is: sqlite:PATH, kafka://HOST:PORT[,HOST:PORT], recording:FILE"
    )
    board: str = Field("", description="where the board is: sqlite:PATH or redis://HOST:PORT/DB; unset: the log's file")
    board_prefix: str = Field(
        "",
        pattern=r"^([A-Za-z0-9._-]{1,64})?$",
        description="beginning of the board's keys in its store, letters, digits, . _ -; unset: the mesh's prefix",
    )
    topology: str = Field(TOPOLOGY_NAME, description="the mesh itself: topics, agents, limits")
    chaos: bool = Field(False, description="`mesh break` may break agents here, whatever topics.yaml says")
    kafka: dict[str, str] = Field(default_factory=dict, description="TLS and SASL settings, with aiokafka's names")
    synchronous: Literal["NORMAL", "FULL"] = Field(
        "NORMAL", description="embedded file: NORMAL survives kill -9, FULL also power loss"
    )
    append_timeout_ms: int = Field(
        10_000, gt=0, le=INTEGER_MAX, description="the log must acknowledge an append within this"
    )
    session_timeout_ms: int = Field(
        6_000, ge=1_000, le=INTEGER_MAX, description="a process that sends no heartbeat is replaced after this"
    )
    worker_absence_ms: int = Field(
        5_000, ge=0, le=INTEGER_MAX, description="without a worker, an agent's tasks fail after its timeout and this"
    )
    board_timeout_ms: int = Field(250, gt=0, le=INTEGER_MAX, description="a board call fails after this")
    drain_timeout_ms: int = Field(
        10_000, ge=0, le=INTEGER_MAX, description="how long a stopping process waits for running tasks"
    )
    cancel_grace_ms: int = Field(
        2_000, ge=0, le=INTEGER_MAX, description="an agent that runs this long after its cancellation is abandoned"
    )
    strays_max: int = Field(
        32, ge=0, le=INTEGER_MAX, description="with more abandoned calls that still run, a worker ends with code 7"
    )
    blocked_ms_max: int = Field(
        30_000, ge=200, le=INTEGER_MAX, description="a worker whose agents block it for this long ends with code 7"
    )
    http: str = Field("", description="PORT or HOST:PORT of /metrics, /healthz and /readyz; unset: none")
    trace_slow_ms: int = Field(
        10_000, ge=0, le=INTEGER_MAX, description="tasks and runs that take longer are traced, sampled or not; 0: none"
    )
    trace_kept_max: int = Field(
        2_048, ge=0, le=1_000_000, description="spans outside the sample kept in case their run ends badly; 0: none"
    )
    trace_decisions: float = Field(0, ge=0, le=1, description="share of traced runs whose decisions are spans")
    run_index: str = Field("", description="folder of the index of runs, or off; unset: beside the embedded file")
    poll_records_max: int = Field(500, gt=0, le=100_000, description="records of one poll")
    record_bytes_max: int = Field(
        RECORD_BYTES_MAX,
        ge=RECORD_BYTES_MIN,
        le=SIZE_BYTES_MAX,
        description="size of the largest record that the log accepts, with key, headers and framing",
    )
    internal_headers: Literal["packed", "plain"] = Field(
        "packed", description="one header on the inbox and on tasks, or `plain` ones, which earlier versions read"
    )


class Loaded(NamedTuple):
    """Settings, and for each field the source it came from (`default`, a file's path, `MESH_LOG`, `--log`).

    A field with several values has an origin for each: `kafka.sasl_mechanism`. `ignored`: environment variables that
    begin with MESH_ and name no setting (Kubernetes sets such for a service called mesh).
    """

    settings: Settings
    origins: Mapping[str, str]
    ignored: tuple[str, ...] = ()


class _Source(NamedTuple):
    """The values that one source sets. `folder`: start of its relative paths; None: the working directory."""

    values: dict[str, Any]
    origins: dict[str, str]
    folder: Path | None = None
    ignored: tuple[str, ...] = ()


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    user_file: Path | None = None,
) -> Loaded:
    """Merge all sources. `flags` that are None count as unset. Raises ConfigInvalid naming the key and its source."""
    environ = os.environ if environ is None else environ
    directory = (directory or working_folder()).absolute()
    sources = [
        _defaults(directory),
        _from_file(user_file or _user_file()),
        _from_file(_upward(directory, FILE_NAME)),
        _from_environ(environ, directory),
        _from_flags(flags or {}),
    ]
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, DEFAULT)
    for source in sources:
        for name, value in source.values.items():
            _expect_text(name, value, source.origins)
            value = _anchor(name, value, _Base(directory / (source.folder or ""), environ, source.origins))
            both = isinstance(value, dict) and isinstance(merged.get(name), dict)
            merged[name] = {**merged[name], **value} if both else value
        origins.update(source.origins)
    return Loaded(_validate(merged, origins), origins, tuple(name for s in sources for name in s.ignored))


def working_folder() -> Path:
    """Return the working directory. Raises ConfigInvalid if it was removed or its name is no text."""
    try:
        folder = Path.cwd()
        flaw = text_flaw(str(folder))
    except OSError as error:
        folder, flaw = Path(), f"cannot be used: {error.strerror}"
    if flaw:
        raise ConfigInvalid(
            f"the working directory {flaw}", where=ascii(str(folder)), remedy="Change to another folder"
        )
    return folder


def data_folder() -> Path:
    """Return the folder of this user's data: `$XDG_DATA_HOME/mesh`. Raises ConfigInvalid without a home folder."""
    try:
        return user_data_path("mesh")
    except RuntimeError as error:
        what = "the home folder of this user is not known"
        raise ConfigInvalid(what, where="HOME", remedy="Set HOME or XDG_DATA_HOME to the path of a folder") from error


def shown(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield every setting as text, nested ones as `kafka.name`; secrets are masked, an unset secret is empty."""
    for name, value in settings:
        if isinstance(value, dict):
            for inner, text in sorted(value.items()):
                secret = any(word in f"_{inner}".lower() for word in _SECRET_WORDS)
                yield f"{name}.{inner}", "***" if secret and text else mask(text)
        else:
            text = "" if value is None else str(value)
            yield name, mask_address(text) if name in ("log", "board") else mask(text)


def _validate(merged: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    unknown = sorted(set(merged) - set(Settings.model_fields))
    if unknown:
        raise ConfigInvalid(
            f"unknown setting {unknown[0]!r}",
            where=origins[unknown[0]],
            expected=", ".join(Settings.model_fields),
            remedy=did_you_mean(unknown[0], Settings.model_fields, "`mesh config show` lists all settings"),
        )
    try:
        return Settings(**merged)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(step) for step in first["loc"])
        where = origins.get(name) or origins.get(str(first["loc"][0]), "?")
        described = Settings.model_fields[str(first["loc"][0])].description or ""
        remedy = f"It says {described}"
        raise ConfigInvalid(f"setting {name!r}: {first['msg']}", where=where, remedy=remedy) from error


# ---------------------------------------------------------------------------------------------------------- sources


def _defaults(directory: Path) -> _Source:
    """Return the defaults. Their paths start at the project's folder, if the working directory is in one."""
    found = _upward(directory, FILE_NAME) or _upward(directory, TOPOLOGY_NAME)
    return _Source({"log": EMBEDDED, "topology": TOPOLOGY_NAME}, {}, directory if found is None else found.parent)


def _from_flags(flags: Mapping[str, Any]) -> _Source:
    values = {name: value for name, value in flags.items() if value is not None}
    return _Source(values, {name: f"--{name.replace('_', '-')}" for name in values})


def _user_file() -> Path | None:
    """Return the user's own file; None for a user without a home folder, as in containers."""
    try:
        return user_config_path("mesh") / FILE_NAME
    except RuntimeError:
        return None


def _from_file(file: Path | None) -> _Source:
    if file is None:
        return _Source({}, {})
    try:
        values = tomllib.loads(decode_text(file.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return _Source({}, {})
    except ValueError as error:  # also an integer of thousands of digits
        raise ConfigInvalid(f"not valid TOML: {error}", where=str(file)) from error
    except RecursionError as error:
        raise ConfigInvalid("not valid TOML: it is nested too deep", where=str(file)) from error
    except OSError as error:
        raise ConfigInvalid(f"the file cannot be read: {error.strerror}", where=str(file)) from error
    return _Source(values, _origins(values, lambda *_: str(file)), file.parent)


def _from_environ(environ: Mapping[str, str], directory: Path) -> _Source:
    values: dict[str, Any] = {}
    variables: dict[str, str] = {}
    ignored = []
    if environ.get("REDIS_URL"):
        values["board"], variables["board"] = environ["REDIS_URL"], "REDIS_URL"
    for variable in sorted(name for name, text in environ.items() if name.startswith(ENV_PREFIX) and text):
        name, text = variable.removeprefix(ENV_PREFIX).lower(), environ[variable]
        if name.endswith("_file") and name not in Settings.model_fields:
            name, text = name.removesuffix("_file"), _secret(variable, text, _Base(directory, environ))
        outer, _, inner = name.partition("__")
        if outer not in Settings.model_fields:
            near = nearest(outer, Settings.model_fields)
            if near is None:
                ignored.append(variable)
                continue
            raise ConfigInvalid(
                f"no setting is called {outer!r}",
                where=variable,
                remedy=f"Did you mean {ENV_PREFIX}{near.upper()}?",
            )
        if inner:
            nested = values.get(outer)
            values[outer] = {**(nested if isinstance(nested, dict) else {}), inner: text}
            variables[f"{outer}.{inner}"] = variable
        else:
            values[outer] = text
        variables[outer] = variable
    return _Source(values, variables, ignored=tuple(ignored))


def _secret(variable: str, path: str, base: "_Base") -> str:
    """Return the text of the file that `…_FILE` names."""
    plain = variable.removesuffix("_FILE")
    if base.environ.get(plain):
        raise ConfigInvalid(f"{plain} is set too", where=variable, remedy=f"Set {variable} or {plain}, not both")
    try:
        with open(base.path(variable, path), "rb") as file:
            return decode_text(file.read(SECRET_CHARS_MAX)).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigInvalid(f"the file cannot be read: {reason}", where=variable, got=path) from error


def _origins(values: Mapping[str, Any], name_of: Callable[[str], str]) -> dict[str, str]:
    found = {}
    for name, value in values.items():
        found[name] = name_of(name)
        if isinstance(value, dict):
            found.update({f"{name}.{inner}": name_of(inner) for inner in value})
    return found


# ------------------------------------------------------------------------------------------------------------ paths


def _upward(directory: Path, name: str) -> Path | None:
    """Return the nearest file of that name from `directory` up to the root of the git checkout."""
    for folder in (directory, *directory.parents):
        if (folder / name).is_file():
            return folder / name
        if (folder / ".git").exists():
            break
    return None


def _expect_text(name: str, value: Any, origins: Mapping[str, str]) -> None:
    """Raise ConfigInvalid for text that no file, address or library accepts."""
    for inner, text in value.items() if isinstance(value, dict) else [("", value)]:
        key = f"{name}.{inner}" if inner else name
        flaw = text_flaw(text) if isinstance(text, str) else text_flaw(inner)
        if flaw:
            where = origins.get(key) or origins.get(name, DEFAULT)
            raise ConfigInvalid(f"setting {key!r} {flaw}", where=where, expected="UTF-8 text without NUL characters")


class _Base(NamedTuple):
    """Start of a source's relative paths, the variables that its paths may name, and its origins."""

    folder: Path
    environ: Mapping[str, str]
    origins: Mapping[str, str] = {}

    def setting(self, key: str, text: str) -> str:
        """Return the absolute path in a setting. Raises ConfigInvalid that names the setting and its source."""
        origin = self.origins.get(key) or self.origins.get(key.partition(".")[0])
        return self.path(f"{origin}: setting {key!r}" if origin else f"setting {key!r}", text)

    def path(self, where: str, text: str) -> str:
        """Return the absolute path that a text means. Raises ConfigInvalid at `where`."""
        path = self.folder / re.sub("^//+", "/", str(self._expand(where, text)))
        # Not lexical: the parent of a link to a folder is the parent of the link's target.
        return str(path.parent.resolve() / path.name if ".." in path.parts else path)

    def _expand(self, where: str, text: str) -> Path:
        remedy = "Write the path in full"
        url = _FILE_URL.fullmatch(text)
        if url is not None and (url["host"] or "localhost").lower() == "localhost":
            text = unquote(url["path"])
        elif "://" in text or url is not None:
            what = "this is a URL" if url is None else f"a file on {url['host']!r} cannot be read"
            raise ConfigInvalid(what, where=where, expected="the path of a file", got=mask_address(text))
        else:
            text = _VARIABLE.sub(lambda found: self._variable(where, text, found[1] or found[2]), text)
        try:
            path = Path(text) if url else Path(text).expanduser()
        except RuntimeError as error:
            user = text.partition("/")[0]
            what = f"the home folder that {user!r} stands for is not known"
            raise ConfigInvalid(what, where=where, got=text, remedy=remedy) from error
        flaw = text_flaw(str(path))
        if flaw:
            raise ConfigInvalid(f"the path {flaw}", where=where, remedy=remedy)
        return path

    def _variable(self, where: str, text: str, name: str) -> str:
        found = self.environ.get(name)
        if found is None:
            remedy = f"Set {name}, or write the path in full"
            raise ConfigInvalid(f"the variable {name!r} in the path is not set", where=where, got=text, remedy=remedy)
        return found


def _anchor(name: str, value: Any, base: _Base) -> Any:
    """Return the value of a setting with absolute paths."""
    if name == "kafka" and isinstance(value, dict):
        return {
            inner: base.setting(f"kafka.{inner}", text)
            if inner in KAFKA_PATHS and isinstance(text, str) and text
            else text
            for inner, text in value.items()
        }
    if not isinstance(value, str):
        return value
    if name == "topology" or (name == "run_index" and value not in ("", "off")):
        return base.setting(name, value)
    scheme, colon, rest = value.partition(":")
    if name in ("log", "board") and scheme == "sqlite":
        rest = rest.removeprefix("//") or EMBEDDED.partition(":")[2]
        # Links are resolved so that log, board and wake-up pipes of one file have one name.
        return scheme + colon + os.path.realpath(base.setting(name, rest))
    if name == "log" and scheme == "recording":
        return scheme + colon + base.setting(name, rest)
    if name == "board" and scheme == "unix" and "@" not in rest:
        path, mark, query = rest.removeprefix("//").partition("?")
        return f"unix://{base.setting(name, path)}{mark}{query}" if path.strip("/") else value
    return value
