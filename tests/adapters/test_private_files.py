"""Other users have no rights to the folders and files of the mesh, whatever the umask was or is."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.adapters.private_files import close_off, make_file, make_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    make_folder(folder)
    make_file(folder / "file")
    assert [mode(path) for path in (tmp_path / "a", tmp_path / "a" / "b", folder)] == [0o700] * 3
    assert mode(folder / "file") == 0o600


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "file").chmod(0o640)
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    make_file(tmp_path / "file")
    assert (mode(tmp_path), mode(tmp_path / "file"), (tmp_path / "file").read_text()) == (0o755, 0o640, "kept")


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    make_file(tmp_path / "file")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


def test_rights_of_others_are_taken_and_named_once(tmp_path: Path) -> None:
    open_, closed = tmp_path / "open", tmp_path / "closed"
    for path, given in ((open_, 0o664), (closed, 0o600)):
        make_file(path)
        path.chmod(given)
    assert close_off([open_, closed, tmp_path / "missing"]) == ["open (0664)"]
    assert (mode(open_), mode(closed)) == (0o600, 0o600)
    assert close_off([open_, closed]) == []
