"""Folders of topics.yaml that hold what disturbs: names of the library, a change of the working directory."""

import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, until

TOPOLOGY = """
mesh: {name: folder, inbox: {partitions: 2}}
topics: {asks: {ingress: a.in, partitions: 2}, answers: {egress: a.out, partitions: 2}}
agents: {one: {run: "shop.ag:one", on: a.in, emits: a.out, timeout: 20s}}
"""
AGENT = """
import os
from mesh import Payload, agent
class In(Payload, type="a.in"):
    n: int
    go: bool = False
class Out(Payload, type="a.out"):
    n: int
os.chdir(os.path.dirname(os.path.abspath(__file__)))
@agent
async def one(event: In) -> Out:
    if event.go:
        os.chdir("/")
    return Out(n=event.n)
"""
LIBRARY = ("redis", "queue", "sqlite3", "statistics", "structlog", "typer", "calendar", "uuid_utils", "secrets")


@pytest.fixture
def shop(project: Cli, tmp_path: Path) -> Cli:
    here = tmp_path / "here"
    (here / "shop").mkdir(parents=True)
    (here / "topics.yaml").write_text(TOPOLOGY)
    (here / "shop" / "ag.py").write_text(AGENT)
    return project.at(here)


def ends(cli: Cli, n: int, go: bool = False) -> None:
    run = cli("publish", "a.in", f'{{"n": {n}, "go": {str(go).lower()}}}', "--json").rows[0]["run"]
    until(lambda: cli("run", "show", run, "--json").rows[0]["state"] == "completed")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_files_named_like_modules_of_the_library_disturb_nothing(shop: Cli, workers: str) -> None:
    for name in LIBRARY:
        (shop.folder / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    assert shop.fresh("check").code == 0
    with shop.up("--workers", workers) as running:
        ends(shop, 1)
        running.signal(signal.SIGTERM)
        assert running.end().code == 143


@pytest.mark.parametrize("workers", ["1", "2"])
def test_agents_that_change_the_working_directory_move_no_file_of_the_mesh(shop: Cli, workers: str) -> None:
    with shop.up("--workers", workers) as running:
        for n, go in enumerate((False, True, False)):
            ends(shop, n, go)
        running.signal(signal.SIGTERM)
        assert running.end().code == 143
    assert sorted(path.name for path in shop.folder.rglob(".mesh")) == [".mesh"]


def test_an_agents_module_whose_name_is_taken_is_refused_with_its_file(shop: Cli) -> None:
    (shop.folder / "queue.py").write_text("def one(event: dict) -> dict: ...\n")
    (shop.folder / "topics.yaml").write_text(TOPOLOGY.replace("shop.ag:one", "queue:one"))
    done = shop("check")
    assert done.code == 1
    assert f"not {shop.folder}/queue.py. Rename {shop.folder}/queue.py" in done.out
