"""What every command has at hand: the screen, the settings, the topology, an open log and board."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mesh.cli.framework.output import Output
from mesh.core.errors import ConfigInvalid, NotFound

if TYPE_CHECKING:
    from mesh.adapters.ports import Board, Log
    from mesh.core.topology.model import Topology
    from mesh.settings import Loaded, Settings


class CommonOptions(NamedTuple):
    """The options that every command takes. None and 0: not given."""

    log: str | None = None
    board: str | None = None
    topology: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_color: bool = False

    def over(self, before: "CommonOptions | None") -> "CommonOptions":
        """These, where not given those that stood before the noun."""
        if before is None:
            return self
        return CommonOptions(
            self.log or before.log,
            self.board or before.board,
            self.topology or before.topology,
            self.json or before.json,
            self.quiet or before.quiet,
            self.verbose or before.verbose,
            self.no_color or before.no_color,
        )


class Session:
    """One command being run."""

    def __init__(self, wanted: CommonOptions) -> None:
        self.wanted, self._chaos = wanted, False
        verbosity = -1 if wanted.quiet else wanted.verbose
        self.output = Output(json=wanted.json, verbosity=verbosity, colour=not wanted.no_color)

    @cached_property
    def loaded(self) -> "Loaded":
        """Settings with their origins. Raises ConfigInvalid."""
        from mesh.settings import load

        return load({"log": self.wanted.log, "board": self.wanted.board, "topology": self.wanted.topology})

    @property
    def settings(self) -> "Settings":
        """The settings of this command."""
        return self.loaded.settings

    @cached_property
    def topology(self) -> "Topology":
        """The mesh as declared. Raises TopologyInvalid, ConfigInvalid."""
        from mesh.app.wiring import load_topology
        from mesh.core.topology.digest import digest_of

        topology = load_topology(self.settings.topology)
        if topology.chaos or not (self._chaos or self.settings.chaos):
            return topology
        topology = replace(topology, chaos=True)
        return replace(topology, digest=digest_of(topology))

    def override_topology(self, path: str, *, chaos: bool = False) -> None:
        """Use this file, whatever is set; with `chaos` its agents may be broken on purpose. Call it before the topology
        is first read."""
        self._chaos = chaos
        self.wanted = self.wanted._replace(topology=path)

    @asynccontextmanager
    async def log(self, *, create: bool = False) -> AsyncIterator["Log"]:
        """The log, started, and closed afterwards. An embedded file that is not there is made only with `create`.

        Raises ForeignLog if it is another mesh's.
        """
        from mesh.adapters.clock import SystemClock
        from mesh.app.wiring import open_log
        from mesh.runtime.topology_store import expect_own_log

        if not create:
            _expect_file(self.settings.log)
        log = open_log(self.settings, client="mesh-cli")
        await log.start()
        try:
            await expect_own_log(log, self.topology, SystemClock())
            yield log
        finally:
            await log.close()

    @asynccontextmanager
    async def board(self, *, create: bool = False) -> AsyncIterator["Board"]:
        """The board, started, and closed afterwards."""
        from mesh.app.wiring import open_board

        if not create:
            _expect_file(self.settings.board or self.settings.log)
        board = open_board(self.settings, self.topology.prefix)
        await board.start()
        try:
            yield board
        finally:
            await board.close()


def embedded_path(url: str) -> Path | None:
    """The file of an embedded log or board; None for one that is elsewhere."""
    scheme, _, rest = url.partition(":")
    return Path(rest.removeprefix("//")) if scheme == "sqlite" else None


def short(url: str) -> str:
    """An address for people: an embedded file as seen from here, secrets masked."""
    from mesh.core.redaction import mask_address

    path = embedded_path(url)
    if path is None:
        return mask_address(url)
    try:
        return f"sqlite:{path.absolute().relative_to(Path.cwd())}"
    except ValueError:
        return f"sqlite:{path}"


def _expect_file(url: str) -> None:
    path = embedded_path(url)
    if path is None or path.is_file():
        return
    if path.exists():
        raise ConfigInvalid("this is no file", where=short(url), expected="the mesh's embedded file")
    raise NotFound("no mesh here yet", where=short(url), remedy="`mesh demo` shows one, `mesh up` starts yours")
