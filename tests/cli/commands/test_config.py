"""`mesh config` and `mesh version`."""

import tomllib
from pathlib import Path

from tests.cli.conftest import Cli


def test_every_setting_is_shown_with_its_origin_and_secrets_are_not(cli: Cli) -> None:
    (cli.folder / "mesh.toml").write_text('drain_timeout_ms = 1234\n[kafka]\nsasl_mechanism = "PLAIN"\n')
    secret = cli.folder / "password"
    secret.write_text("hunter2\n")
    env = {"MESH_KAFKA__SASL_PLAIN_PASSWORD_FILE": str(secret), "MESH_BOARD": "redis://:hunter2@localhost/0"}
    done = cli("config", "show", "--origin", "--json", "--log", "kafka://broker:9092", env=env)
    rows = {row["name"]: row for row in done.rows}
    assert (rows["log"]["value"], rows["log"]["origin"]) == ("kafka://broker:9092", "--log")
    assert rows["drain_timeout_ms"]["origin"] == str(cli.folder / "mesh.toml")
    assert rows["kafka.sasl_mechanism"]["value"] == "PLAIN"
    assert rows["kafka.sasl_plain_password"]["value"] == "***"
    assert rows["kafka.sasl_plain_password"]["origin"] == "MESH_KAFKA__SASL_PLAIN_PASSWORD_FILE"
    assert rows["board"]["origin"] == "MESH_BOARD"
    assert rows["synchronous"]["origin"] == "default"
    assert "hunter2" not in done.out
    assert "hunter2" not in cli("config", "show", env=env).out


def test_a_mistake_in_the_settings_is_exit_code_2_and_names_its_source(cli: Cli) -> None:
    done = cli("config", "show", env={"MESH_TOPOLGY": "x"})
    assert done.code == 2
    assert done.err == ("error: MESH_TOPOLGY: no setting is called 'topolgy'. Did you mean MESH_TOPOLOGY?\n")
    (cli.folder / "mesh.toml").write_text("log = \n")
    assert f"error: {cli.folder}/mesh.toml: not valid TOML" in cli("run", "list").err


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    told = cli("--version")
    assert told.code == 0
    (row,) = cli("version", "--json").rows
    assert told.out == f"mesh {row['mesh']}\n"
    declared = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["version"]
    assert row["mesh"] in (declared, "0+source")
    assert row["libraries"]["typer"]
