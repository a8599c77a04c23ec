"""Every option, every argument and every setting with invalid values: each is answered by an error that names it, or is
accepted. None causes an internal error.

The walk has no random choice. Commands run in this process; those that go on until Ctrl-C get a log that cannot be
opened, so that they end.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.core import TyperArgument, TyperGroup
from typer.main import get_command

from mesh.adapters.kafka.connection import NAMES
from mesh.app.wiring import load_topology, open_board, open_log
from mesh.cli.app import app
from mesh.cli.framework.options import COMMON
from mesh.core.errors import MeshError
from mesh.settings import Settings, load
from tests.fuzz.typed import expect_no_bug, project_in, typed

NUMBERS: Final = ("", "x", "-1", "0", "1.5", "1e400", "nan", "-inf", "9" * 40, "9" * 5_000, "٣")
TEXTS: Final = (
    *("", "a\0b", "\udcff", "\x1b[31m\u202e", "x" * 70_000, "*" * 90, "[" * 60_000, "=", "-"),
    *("nan", "9" * 40 + "s", "9" * 5_000, "~unknown-9/x", "/", "@/proc/self/mem", "/proc/self/mem"),
)
FEW: Final = ("", "nan", "9" * 5_000)
"""For an option that a command shares with one before it: the same code reads it."""
ADDRESSES: Final = (
    "kafka://",
    "kafka://h:99999",
    "kafka://h:text",
    "kafka://h:1:2",
    "kafka://[::1",
    "redis://",
    "redis://h:text",
    "redis://h/text",
    "redis://[::1",
    "unix:",
    "sqlite:",
    "sqlite:/",
    "sqlite:/dev/null",
    "sqlite:/dev/null/x",
    "sqlite:/proc/self/mem",
    "sqlite:~unknown-9/x",
    "sqlite:a\0b",
    "sqlite:\udcff",
    "sqlite:" + "x" * 5_000,
    "http://h",
    "://",
    ":",
    "file:///etc",
)
FILLED: Final = {
    "type": "hello",
    "payload": "{}",
    "run": "00000000",
    "key": "a/b",
    "value": "1",
    "pattern": "a/*",
    "id": "00000000",
    "name": "greeter",
    "what": "all",
    "topics": "inbox",
    "paths": "recordings",
}
"""Values of arguments that a command cannot do without, by their names."""
ENDLESS: Final = {"up", "demo", "bench", "watch"}
UNOPENED: Final = ("--log", "sqlite:/dev/null/x", "--board", "sqlite:/dev/null/x")


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a mesh that is not up, in which all of this is typed."""
    with project_in(tmp_path_factory.mktemp("nasty") / "desk") as folder:
        yield folder


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(command, TyperGroup):
        yield words, command
        return
    context: Any = None
    for name in command.list_commands(context):
        yield from _commands(command.get_command(context, name), (*words, name))


COMMANDS: Final = dict(sorted(_commands(get_command(app)), key=lambda found: found[0][0] == "publish"))
"""`publish` is last, since others would wait for the runs that it begins."""
SHARED: Final = {parameter.name for parameter in COMMON}


def _lines(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Command lines of a command: each of its own parameters with each value, the others as they should be."""
    parameters = [parameter for parameter in COMMANDS[words].params if parameter.name not in SHARED]
    arguments = [parameter for parameter in parameters if isinstance(parameter, TyperArgument)]
    filled = {argument.name: FILLED[argument.name] for argument in arguments if argument.required}
    end = UNOPENED if ENDLESS & set(words) else ()
    for parameter in parameters:
        numeric = parameter.type_descriptor.annotation is int
        values: tuple[str, ...] = FEW if _shared(words, parameter) else NUMBERS if numeric else TEXTS
        if words == ("init",):  # it would write its files there
            values = tuple(value for value in values if value != "/")
        if isinstance(parameter, TyperArgument):
            for value in values:
                yield (*words, *end, "--", *{**filled, parameter.name: value}.values())
        elif not (parameter.is_flag or parameter.hidden):
            long = next(name for name in parameter.opts if name.startswith("--"))
            for value in values:
                yield (*words, *end, f"{long}={value}", "--", *filled.values())


def _shared(words: tuple[str, ...], parameter: Any) -> bool:
    """Whether a command before this one has the same parameter."""
    same = (parameter.name, parameter.opts, parameter.help, parameter.metavar)
    return words != next(
        before
        for before, command in COMMANDS.items()
        if same in [(other.name, other.opts, other.help, other.metavar) for other in command.params]
    )


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_and_argument_of_a_command_answers_any_value(words: tuple[str, ...]) -> None:
    for line in _lines(words):
        code, _, err = typed(*line)
        expect_no_bug([word[:80] for word in line], code, err)


@pytest.mark.parametrize("option", ["--log", "--board", "--topology"])
def test_options_of_every_command_answer_any_value(option: str) -> None:
    lines: list[tuple[str, ...]] = [("run", "list"), ("board", "get", "a/b"), ("check",), ("publish", "hello", "{}")]
    lines += [("config", "show"), ("export", "k8s"), ("up", *UNOPENED)]
    for line in lines:
        for value in TEXTS if option == "--topology" else (*ADDRESSES, *FEW):
            code, _, err = typed(*line, f"{option}={value}", "-q")
            expect_no_bug((line, value[:80]), code, err)


# ------------------------------------------------------------------------------------------------------------ settings

TOML: Final = (
    *("-1", "0", "1.5", "inf", "-inf", "nan", "9" * 40, "9" * 5_000, "true", "1979-05-27", "[]", "[1, {a = 1}]", "{}"),
    *("{a = {b = 1}}", "[" * 5_000, '"\\u0000"', '"x', "'~unknown-9/x'", "'/proc/self/mem'", "''"),
)
CODES_OF_USE: Final = {"config_invalid", "topology_invalid", "not_found"}
FILES: Final = ("/", "/dev/full/x", "/proc/self/mem", "nowhere", "~unknown-9/x", "a\0b", "\udcff", "x" * 5_000, "empty")


def _told(environ: dict[str, str]) -> MeshError | None:
    """Load the settings and make what they name; the error that a command would tell."""
    try:
        settings = load(environ=environ).settings
        load_topology(settings.topology)
        open_log(settings)
        open_board(settings, "mesh")
    except MeshError as error:
        return error
    return None


def _expect_named(given: object, environ: dict[str, str]) -> None:
    told = _told(environ)
    assert told is None or told.code in CODES_OF_USE, (given, told)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_of_the_environment_answers_any_value(name: str, project: Path) -> None:
    variable = f"MESH_{name.upper()}"
    for value in (*NUMBERS, *TEXTS, *ADDRESSES):
        _expect_named(value[:80], {variable: value})
        _expect_named(value[:80], {f"{variable}__INNER": value})
    (project / "empty").write_bytes(b"")
    for path in FILES:
        _expect_named(path[:80], {f"{variable}_FILE": path})


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_of_a_file_answers_any_value(name: str, project: Path) -> None:
    try:
        for value in (*TOML, *(f"'{text}'" for text in ADDRESSES if text.isprintable())):
            (project / "mesh.toml").write_text(f"{name} = {value}\n")
            _expect_named(value[:80], {})
    finally:
        (project / "mesh.toml").unlink()


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_kafka_answers_any_value(name: str) -> None:
    for protocol in ("SASL_SSL", "PLAINTEXT"):
        base = {"MESH_LOG": "kafka://127.0.0.1:9", "MESH_BOARD": "redis://127.0.0.1:9"}
        base |= {"MESH_KAFKA__SECURITY_PROTOCOL": protocol}
        if protocol == "SASL_SSL":
            base |= {"MESH_KAFKA__SASL_PLAIN_USERNAME": "me", "MESH_KAFKA__SASL_PLAIN_PASSWORD": "pw"}
        for value in (*FEW, "a\0b", "\udcff", "~unknown-9/x", "/", "/proc/self/mem"):
            _expect_named((protocol, value[:80]), {**base, f"MESH_KAFKA__{name.upper()}": value})


@pytest.mark.parametrize(
    "variable",
    ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TERM", "COLUMNS", "LINES", "LANG", "TMPDIR", "TZ", "REDIS_URL"],
)
def test_variables_of_the_system_answer_any_value(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable == "HOME":
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.delenv("XDG_DATA_HOME")
    for value in (None, "", "~", "-1", "9" * 40, "/dev/null", "\udcff", "x" * 5_000):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
        for line in (("config", "show"), ("board", "put", "a", "1")):
            code, _, err = typed(*line)
            expect_no_bug((variable, value and value[:80], line), code, err)


def test_a_working_directory_that_is_gone_or_has_no_utf_8_name_is_reported(tmp_path: Path) -> None:
    before = Path.cwd()
    try:
        for name, gone in (("gone", True), ("\udcff", False)):
            folder = tmp_path / name
            folder.mkdir()
            os.chdir(folder)
            if gone:
                folder.rmdir()
            for line in (("config", "show"), ("check",), ("up",), ("run", "list"), ("publish", "hello", "{}")):
                code, _, err = typed(*line)
                expect_no_bug((name, line), code, err)
                assert code == 2, (name, line, err)
    finally:
        os.chdir(before)


def test_a_path_that_the_system_refuses_is_invalid_configuration() -> None:
    for line in (("run", "list"), ("verify",), ("board", "get", "a")):
        code, _, err = typed(*line, "--json", "--log", f"sqlite:{'x' * 300}/m.db")
        assert (code, '"code":"config_invalid"' in err) == (2, True), (line, err)
