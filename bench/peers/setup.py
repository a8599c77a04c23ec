"""Make .peers, the environment of the peers: `python -m bench.peers.setup`.

Python packages come from the index that pip is configured for, in the versions of requirements.txt. Restate's server
comes from the registry that npm is configured for, if npm is there. The project depends on none of them. Run it again
after a change of the versions.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".peers"
PYTHON = FOLDER / "bin" / "python"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
NODE = FOLDER / "node"
RESTATE_SERVER = NODE / "node_modules" / ".bin" / "restate-server"
RESTATE_PACKAGE = "@restatedev/restate-server@1.7.12"


class NotMade(RuntimeError):
    """The environment of the peers is not there."""


def python() -> Path:
    """The interpreter of the peers. Raises NotMade."""
    if not PYTHON.exists():
        raise NotMade(f"there is no {PYTHON.relative_to(ROOT)}; make it with: python -m bench.peers.setup")
    return PYTHON


def packages() -> None:
    """The Python packages. Raises CalledProcessError when pip cannot get one."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)


def restate_server() -> bool:
    """Restate's server; False, and said so, where npm is missing. Raises CalledProcessError when npm fails."""
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not here: Restate is left out")
        return False
    flags = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--loglevel=error"]
    subprocess.run([npm, "install", *flags, "--prefix", str(NODE), RESTATE_PACKAGE], check=True)
    return True


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(
        prog="python -m bench.peers.setup", description=(__doc__ or "").partition("\n")[0]
    ).parse_args()
    packages()
    restate_server()
    print(f"{FOLDER.relative_to(ROOT)} is ready")


if __name__ == "__main__":
    main()
