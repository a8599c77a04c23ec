"""docker-compose.yml against the schema of Compose, the command line and the settings: no engine needed."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mesh.app.process import SERVICES
from mesh.core.address import http_address
from mesh.settings import Settings, load

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "agent-mesh"}


def test_the_file_fits_the_compose_schema() -> None:
    schema = json.loads((Path(__file__).parent / "data" / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_every_service_of_the_mesh_is_a_container_and_runs_its_own_command() -> None:
    assert set(SERVICES) <= set(OURS)
    for name in SERVICES:
        assert OURS[name]["command"] == ["up", name]


@pytest.mark.parametrize("name", sorted(OURS))
def test_commands_are_understood_by_the_command_line(name: str) -> None:
    from tests.command_line import parses

    assert parses(OURS[name]["command"]), OURS[name]["command"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_environment_names_are_settings(name: str) -> None:
    environment: dict[str, Any] = OURS[name]["environment"]
    settings = load({}, environ=environment, directory=Path("/")).settings
    assert settings != Settings()
    assert settings.log.startswith("kafka://kafka:19092")
    assert settings.board.startswith("redis://redis:6379")


def test_addresses_are_those_of_services_and_listeners() -> None:
    kafka = COMPOSE["services"]["kafka"]["environment"]
    assert "INTERNAL://kafka:19092" in kafka["KAFKA_ADVERTISED_LISTENERS"]
    assert "INTERNAL://:19092" in kafka["KAFKA_LISTENERS"]
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_everything_waits_for_what_it_needs() -> None:
    for name in SERVICES:
        assert OURS[name]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert OURS["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    for name in ("kafka", "redis"):
        assert COMPOSE["services"][name]["healthcheck"]["test"]


def test_health_is_asked_where_the_process_answers() -> None:
    for name in (*SERVICES, "monitor"):
        service = OURS[name]
        _, port = http_address(service["environment"]["MESH_HTTP"])
        assert f"http://127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1]
        compile(service["healthcheck"]["test"][-1], name, "exec")
    for name in set(OURS) - {*SERVICES, "monitor"}:
        assert OURS[name]["healthcheck"] == {"disable": True}


def test_a_container_may_drain_before_it_is_killed() -> None:
    for name in SERVICES:
        grace = OURS[name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) * 1000 > Settings().drain_timeout_ms + 10_000


def test_the_image_holds_what_the_commands_need() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for needed in ("COPY mesh ./mesh", "COPY agents ./agents", "topics.yaml", 'ENTRYPOINT ["mesh"]'):
        assert needed in dockerfile
