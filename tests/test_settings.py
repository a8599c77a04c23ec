"""Settings: five sources, one result, and where each value came from."""

import os
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.ports import SESSION_TIMEOUT_MS
from mesh.core.errors import ConfigInvalid
from mesh.settings import Loaded, Settings, data_folder, load, shown


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder in a checkout of its own, so that nothing above it counts."""
    (tmp_path / "project" / ".git").mkdir(parents=True)
    (tmp_path / "project" / "src" / "deep").mkdir(parents=True)
    return tmp_path / "project"


def loaded(here: Path, flags: dict[str, object] | None = None, /, **environ: str) -> Loaded:
    return load(flags, environ=environ, directory=here, user_file=here.parent / "user.toml")


# --------------------------------------------------------------------------------------------------------- precedence


def test_nothing_set_gives_the_defaults(here: Path) -> None:
    found = loaded(here)
    assert found.settings == Settings(log=f"sqlite:{here}/.mesh/mesh.db", topology=f"{here}/topics.yaml")
    assert set(found.origins.values()) == {"default"}
    assert found.settings.session_timeout_ms == SESSION_TIMEOUT_MS


def test_flags_win_over_environment_over_project_over_user_over_defaults(here: Path) -> None:
    names = ("append_timeout_ms", "session_timeout_ms", "board_timeout_ms", "drain_timeout_ms")
    (here.parent / "user.toml").write_text("".join(f"{name} = 1111\n" for name in names))
    (here / "mesh.toml").write_text("".join(f"{name} = 2222\n" for name in names[1:]))
    found = loaded(here, {"drain_timeout_ms": 4444}, MESH_BOARD_TIMEOUT_MS="3333", MESH_DRAIN_TIMEOUT_MS="3333")
    assert [getattr(found.settings, name) for name in names] == [1111, 2222, 3333, 4444]
    assert [found.origins[name] for name in names] == [
        str(here.parent / "user.toml"),
        str(here / "mesh.toml"),
        "MESH_BOARD_TIMEOUT_MS",
        "--drain-timeout-ms",
    ]
    assert found.origins["log"] == "default"


def test_what_is_not_given_is_not_set(here: Path) -> None:
    found = loaded(here, {"log": None}, MESH_LOG="", MESH_BOARD="redis://r")
    assert (found.settings.log, found.origins["log"]) == (f"sqlite:{here}/.mesh/mesh.db", "default")
    assert found.origins["board"] == "MESH_BOARD"


def test_nested_values_of_several_sources_come_together(here: Path) -> None:
    (here / "mesh.toml").write_text('[kafka]\nsasl_mechanism = "PLAIN"\nsecurity_protocol = "SSL"\n')
    found = loaded(here, MESH_KAFKA__SECURITY_PROTOCOL="SASL_SSL")
    assert found.settings.kafka == {"sasl_mechanism": "PLAIN", "security_protocol": "SASL_SSL"}
    assert found.origins["kafka.sasl_mechanism"] == str(here / "mesh.toml")
    assert found.origins["kafka.security_protocol"] == "MESH_KAFKA__SECURITY_PROTOCOL"


def test_redis_url_is_honoured_unless_the_mesh_says_otherwise(here: Path) -> None:
    assert loaded(here, REDIS_URL="redis://one").settings.board == "redis://one"
    assert loaded(here, REDIS_URL="redis://one").origins["board"] == "REDIS_URL"
    assert loaded(here, REDIS_URL="redis://one", MESH_BOARD="redis://two").settings.board == "redis://two"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().log = "x"  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------------- secrets


def test_a_secret_may_come_from_a_file(here: Path) -> None:
    secret = here / "password"
    secret.write_text("hunter2\n")
    found = loaded(here, MESH_KAFKA__SASL_PLAIN_PASSWORD_FILE=str(secret))
    assert found.settings.kafka == {"sasl_plain_password": "hunter2"}
    assert found.origins["kafka.sasl_plain_password"] == "MESH_KAFKA__SASL_PLAIN_PASSWORD_FILE"


def test_a_secret_given_twice_is_refused(here: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"MESH_BOARD_FILE: MESH_BOARD is set too"):
        loaded(here, MESH_BOARD="redis://r", MESH_BOARD_FILE=str(here / "x"))


def test_a_secret_whose_file_cannot_be_read_is_refused_by_name(here: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"MESH_BOARD_FILE: the file cannot be read: No such file"):
        loaded(here, MESH_BOARD_FILE=str(here / "nope"))
    (here / "binary").write_bytes(b"\x80\xfe")
    with pytest.raises(ConfigInvalid, match=r"it is not UTF-8"):
        loaded(here, MESH_BOARD_FILE=str(here / "binary"))


def test_secrets_are_masked_when_settings_are_shown(here: Path) -> None:
    found = loaded(
        here,
        MESH_BOARD="redis://user:hunter2@localhost/0",
        MESH_KAFKA__SASL_PLAIN_PASSWORD="hunter2",
        MESH_KAFKA__SASL_PLAIN_USERNAME="me",
        MESH_KAFKA__SSL_KEY="hunter2",
    )
    rows = dict(shown(found.settings))
    assert rows["board"] == "redis://user:***@localhost/0"
    assert rows["kafka.sasl_plain_password"] == rows["kafka.ssl_key"] == "***"
    assert rows["kafka.sasl_plain_username"] == "me"
    assert "hunter2" not in str(rows)


@pytest.mark.parametrize(
    "password", ["hunter2", "hun@ter2", "hun/ter2", "hun ter2", 'hun"ter2', "8080/hunter2", "hun:ter2#?"]
)
@pytest.mark.parametrize(
    "form", ["redis://u:{}@h:6379/0", "redis://:{}@h", "rediss://{}@h", "kafka:u:{}@h", "x://u:{}@h,v:{}@i"]
)
def test_no_address_is_shown_with_its_password(here: Path, form: str, password: str) -> None:
    text = form.replace("{}", password)
    rows = dict(shown(loaded(here, MESH_BOARD=text, MESH_LOG=text).settings))
    assert "***@" in rows["board"]
    assert password not in rows["board"] + rows["log"]
    assert "ter2" not in rows["board"] + rows["log"]


def test_a_wrong_value_is_not_repeated_since_it_may_be_a_secret(here: Path) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        loaded(here, MESH_BOARD_TIMEOUT_MS="hunter2")
    assert "hunter2" not in str(refused.value)
    assert str(refused.value).startswith("MESH_BOARD_TIMEOUT_MS: setting 'board_timeout_ms': ")


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"MESH_TOPOLGY": "x"}, "Did you mean MESH_TOPOLOGY?"),
        ({"MESH_KAFKAA__X": "x"}, "Did you mean MESH_KAFKA?"),
        ({"MESH_POLL_RECORDS_MAX": "0"}, "greater than 0"),
        ({"MESH_SYNCHRONOUS": "OFF"}, "'NORMAL' or 'FULL'"),
        ({"MESH_LOG__X": "x"}, "setting 'log'"),
        ({"MESH_KAFKA": "x"}, "setting 'kafka'"),
    ],
)
def test_a_mistake_in_the_environment_names_its_variable(here: Path, environ: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        loaded(here, **environ)
    assert str(refused.value).startswith(next(iter(environ)))
    assert told in str(refused.value)


def test_variables_of_others_that_only_look_like_ours_are_passed_over(here: Path) -> None:
    kubernetes = {"MESH_PORT": "tcp://10.0.0.1:80", "MESH_SERVICE_HOST": "10.0.0.1", "MESH_KAFKA_SERVICE_PORT": "9092"}
    found = loaded(here, **kubernetes, MESH_LIVE="required")
    assert found.settings == Settings(log=f"sqlite:{here}/.mesh/mesh.db", topology=f"{here}/topics.yaml")
    assert set(found.ignored) == {*kubernetes, "MESH_LIVE"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("log = ", "not valid TOML"),
        ('lgo = "x"', "unknown setting 'lgo'"),
        ('topolgy = "x"', "Did you mean 'topology'?"),
        ("append_timeout_ms = 1.5", "setting 'append_timeout_ms'"),
        ("[kafka]\nssl_check_hostname = true", "setting 'kafka.ssl_check_hostname'"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(here: Path, text: str, told: str) -> None:
    (here / "mesh.toml").write_text(text)
    with pytest.raises(ConfigInvalid) as refused:
        loaded(here)
    assert str(refused.value).startswith(str(here / "mesh.toml"))
    assert told in str(refused.value)


def test_a_file_that_is_no_text_is_refused_by_name(here: Path) -> None:
    (here / "mesh.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigInvalid, match=r"mesh\.toml: not valid TOML"):
        loaded(here)


# --------------------------------------------------------------------------------------------------------------- paths


def test_the_project_file_is_searched_upward_to_the_root_of_the_checkout(here: Path) -> None:
    (here / "mesh.toml").write_text("drain_timeout_ms = 7\n")
    assert loaded(here / "src" / "deep").settings.drain_timeout_ms == 7
    (here.parent / "mesh.toml").write_text("board_timeout_ms = 8\n")
    assert loaded(here / "src" / "deep").settings.board_timeout_ms == Settings().board_timeout_ms


def test_relative_paths_of_a_file_lie_beside_it(here: Path) -> None:
    (here / "mesh.toml").write_text('log = "sqlite:data/m.db"\nboard = "sqlite:data/b.db"\ntopology = "desk.yaml"\n')
    below = loaded(here / "src" / "deep").settings
    assert below.log == f"sqlite:{here}/data/m.db"
    assert below.board == f"sqlite:{here}/data/b.db"
    assert below.topology == f"{here}/desk.yaml"
    assert loaded(here).settings.log == f"sqlite:{here}/data/m.db"


def test_relative_paths_of_flags_and_environment_begin_where_one_stands(here: Path) -> None:
    (here / "mesh.toml").write_text('log = "sqlite:data/m.db"\n')
    found = loaded(here / "src", {"topology": "mine.yaml"}, MESH_LOG="sqlite:mine.db").settings
    assert (found.log, found.topology) == (f"sqlite:{here}/src/mine.db", f"{here}/src/mine.yaml")


def test_absolute_paths_and_addresses_stay_as_they_are(here: Path) -> None:
    (here / "mesh.toml").write_text('log = "kafka://k:9092"\nboard = "redis://r"\ntopology = "/etc/t.yaml"\n')
    found = loaded(here / "src").settings
    assert (found.log, found.board, found.topology) == ("kafka://k:9092", "redis://r", "/etc/t.yaml")


@pytest.mark.parametrize("mark", ["mesh.toml", "topics.yaml"])
def test_defaults_lie_in_the_project_wherever_in_it_one_stands(here: Path, mark: str) -> None:
    (here / mark).write_text("")
    below = loaded(here / "src" / "deep")
    assert below.settings.log == f"sqlite:{here}/.mesh/mesh.db"
    assert below.settings.topology == f"{here}/topics.yaml"
    assert below.origins["log"] == "default"


def test_the_data_folder_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "mesh"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mesh.toml").write_bytes('log = "sqlite:möwe.db"\n'.encode(encoding))
    assert load(directory=tmp_path, environ={}).settings.log == f"sqlite:{tmp_path}/möwe.db"


PLACES = ("log", "board", "socket", "topology", "kafka")


def place(found: Settings, name: str) -> str:
    """The path that a setting holds."""
    if name == "kafka":
        return found.kafka["ssl_cafile"]
    if name == "topology":
        return found.topology
    return (found.board if name == "socket" else str(getattr(found, name))).partition(":")[2].removeprefix("//")


def naming(name: str, path: str) -> dict[str, Any]:
    """A setting that holds a path."""
    if name == "kafka":
        return {"kafka": {"ssl_cafile": path}}
    if name == "socket":
        return {"board": f"unix:{path}"}
    return {name: path if name == "topology" else f"sqlite:{path}"}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("m.db", "{here}/m.db"),
        ("./m.db", "{here}/m.db"),
        ("a/./m.db", "{here}/a/m.db"),
        ("../m.db", "{up}/m.db"),
        ("a/../m.db", "{here}/m.db"),
        ("link/../m.db", "{up}/m.db"),
        ("m.db/", "{here}/m.db"),
        ("a//m.db", "{here}/a/m.db"),
        ("////m.db", "/m.db"),
        ("with space/m ö.db", "{here}/with space/m ö.db"),
        ("~/m.db", "{up}/home/m.db"),
        ("~root/m.db", "/root/m.db"),
        ("$SHELF/m.db", "{up}/a shelf/m.db"),
        ("${SHELF}/m.db", "{up}/a shelf/m.db"),
        ("a$SUFFIX/m$.db", "{here}/a.d/m$.db"),
        ("file:///etc/a%20b.db", "/etc/a b.db"),
        ("file://localhost/etc/$x.db", "/etc/$x.db"),
        ("file:/etc/m.db", "/etc/m.db"),
    ],
)
def test_a_path_may_be_written_as_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str, meant: str
) -> None:
    here = tmp_path / "here"
    (here / "a").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    (here / "link").symlink_to(tmp_path / "target")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    environ = {"SHELF": str(tmp_path / "a shelf"), "SUFFIX": ".d"}
    found = load(naming(name, written), environ=environ, directory=here).settings
    assert place(found, name) == meant.format(here=here, up=tmp_path)


def test_paths_of_a_file_begin_beside_it_and_those_of_the_environment_where_one_stands(here: Path) -> None:
    (here / "mesh.toml").write_text('topology = "t.yaml"\n[kafka]\nssl_cafile = "ca.pem"\nssl_keyfile = "~root/k"\n')
    (here / "src" / "secret").write_text("hunter2")
    environ = {"MESH_KAFKA__SSL_CERTFILE": "cert.pem", "MESH_KAFKA__SSL_PASSWORD_FILE": "$HERE/secret"}
    found = loaded(here / "src", HERE=str(here / "src"), **environ).settings
    assert found.topology == f"{here}/t.yaml"
    assert found.kafka == {
        "ssl_cafile": f"{here}/ca.pem",
        "ssl_keyfile": "/root/k",
        "ssl_certfile": f"{here}/src/cert.pem",
        "ssl_password": "hunter2",
    }
    (here / "src" / "token").write_text("t")
    assert loaded(here / "src", MESH_BOARD_FILE="token").settings.board == "t"


def test_an_embedded_file_has_one_name_however_its_path_is_written(here: Path) -> None:
    (here / "link").symlink_to(here / "src")
    found = loaded(here, MESH_LOG="sqlite:link/m.db", MESH_BOARD="sqlite:src/deep/../m.db").settings
    assert found.log == found.board == f"sqlite:{here}/src/m.db"


def test_an_address_without_a_path_is_the_default_file_in_full(here: Path) -> None:
    assert loaded(here, MESH_LOG="sqlite:").settings.log == f"sqlite:{here}/.mesh/mesh.db"
    assert loaded(here, MESH_BOARD="unix://u:p@/run/r.sock?db=1").settings.board == "unix://u:p@/run/r.sock?db=1"
    assert loaded(here, MESH_BOARD="unix:r.sock?db=1").settings.board == f"unix://{here}/r.sock?db=1"


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("~unknown-9/m.db", "the home folder that '~unknown-9' stands for is not known"),
        ("file:///a%00b", "the path holds a NUL character"),
        ("$NOT_SET/m.db", "the variable 'NOT_SET' in the path is not set"),
        ("${NOT_SET:-x}/m.db", "the variable 'NOT_SET:-x' in the path is not set"),
        ("https://h/topics.yaml", "this is a URL; expected the path of a file"),
        ("file://elsewhere/m.db", "a file on 'elsewhere' cannot be read; expected the path of a file"),
    ],
)
def test_a_path_that_stands_for_nothing_is_refused(tmp_path: Path, name: str, written: str, told: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load(naming(name, written), environ={}, directory=tmp_path)
    setting = {"kafka": "kafka.ssl_cafile", "socket": "board"}.get(name, name)
    assert str(refused.value).startswith(f"--{setting.partition('.')[0]}: setting '{setting}': {told}")


def test_a_path_that_stands_for_nothing_is_reported_with_the_file_that_names_it(here: Path) -> None:
    (here / "mesh.toml").write_text('[kafka]\nssl_cafile = "$NOT_SET/ca.pem"\n')
    with pytest.raises(ConfigInvalid, match=r"mesh\.toml: setting 'kafka\.ssl_cafile': the variable 'NOT_SET'"):
        loaded(here)


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.annotation is int])
def test_no_number_is_larger_than_brokers_and_clocks_take(here: Path, name: str) -> None:
    with pytest.raises(ConfigInvalid, match="less than or equal to"):
        loaded(here, **{f"MESH_{name.upper()}": str(2**31)})


def test_numbers_and_nesting_that_no_reader_takes_are_refused(here: Path) -> None:
    for value in ("9" * 5_000, "[" * 5_000):
        (here / "mesh.toml").write_text(f"drain_timeout_ms = {value}\n")
        with pytest.raises(ConfigInvalid, match=r"mesh\.toml: not valid TOML"):
            loaded(here)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user that has no name")
def test_a_user_without_a_home_folder_has_no_file_and_no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    load(environ={}, directory=Path("/"))  # imports everything, which the other user may not read
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(54_321)
            assert load(environ={}, directory=Path("/")).origins["log"] == "default"
            with pytest.raises(ConfigInvalid, match="HOME: the home folder of this user is not known"):
                data_folder()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
