"""The wheel in an environment of its own, beside a package of another project that is called `agents`."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from mesh.examples import FOLDER

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
TIMEOUT_S = 180


def run(*command: str | Path, cwd: Path, home: Path) -> str:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "XDG_DATA_HOME": str(home / "data")}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    run(*PIP, *build, cwd=folder, home=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the wheel, the libraries it requires, and a foreign package `agents`."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home, home=home)
    python = home / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home, home=home)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home, home=home))
    packages = Path(str(packages).strip())
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (packages / "agents").mkdir()
    (packages / "agents" / "__init__.py").write_text("class Agent:\n    pass\n")
    return python.parent


def test_the_wheel_has_one_top_level_package(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"mesh"}


def test_the_demo_runs_beside_a_foreign_package_called_agents(bin: Path, tmp_path: Path) -> None:
    shown = run(bin / "mesh", "demo", "--once", cwd=tmp_path, home=tmp_path)
    assert "completed" in shown
    (folder,) = (tmp_path / "data" / "mesh").iterdir()
    assert run(bin / "mesh", "check", cwd=folder, home=tmp_path).startswith("✓")
    assert "completed" in run(bin / "mesh", "run", "list", cwd=folder, home=tmp_path)


def test_both_packages_are_imported_as_themselves(bin: Path, tmp_path: Path) -> None:
    code = "import agents, mesh.examples.orders.pricing as p; print(agents.Agent.__module__, p.__name__, p.__file__)"
    foreign, name, file = run(bin / "python", "-c", code, cwd=tmp_path, home=tmp_path).split()
    assert (foreign, name) == ("agents", "mesh.examples.orders.pricing")
    assert Path(file).parts[-5:] == ("mesh", "examples", "agents", "orders", "pricing.py")


def test_the_examples_are_imported_by_the_same_name_from_the_source_tree() -> None:
    pricing = import_module("mesh.examples.orders.pricing")
    assert (FOLDER, pricing.__name__) == (ROOT, "mesh.examples.orders.pricing")
    assert pricing.__file__ == str(ROOT / "agents" / "orders" / "pricing.py")
