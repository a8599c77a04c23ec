"""The session of a command: output, settings, topology, and access to log and board."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mesh.cli.framework.output import Output
from mesh.core.errors import ConfigInvalid, NotFound

if TYPE_CHECKING:
    from mesh.adapters.ports import Board, Log, ReadLog
    from mesh.core.topology.model import Topology
    from mesh.settings import Loaded, Settings


class CommonOptions(NamedTuple):
    """The values of the options that every command takes. None, False and 0: not given."""

    log: str | None = None
    board: str | None = None
    topology: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_color: bool = False

    def merged_over(self, before: "CommonOptions | None") -> "CommonOptions":
        """These values; options that were not given have the values from before the command's name."""
        if before is None:
            return self
        values = zip(self, before, strict=True)
        return CommonOptions._make(own or earlier for own, earlier in values)


class Session:
    """The run of one command."""

    def __init__(self, options: CommonOptions) -> None:
        self.options, self._chaos = options, False
        self._live_log = options.log
        """The log that was named, also while a recording is read in place of it."""
        self._noted = False
        """Whether a reader was told what a recording lacks."""
        verbosity = -1 if options.quiet else options.verbose
        self.output = Output(json=options.json, verbosity=verbosity, colour=not options.no_color)

    @cached_property
    def loaded(self) -> "Loaded":
        """Settings with their origins. Raises ConfigInvalid."""
        from mesh.settings import load

        return load({"log": self.options.log, "board": self.options.board, "topology": self.options.topology})

    @property
    def settings(self) -> "Settings":
        """The settings of this command."""
        return self.loaded.settings

    @cached_property
    def topology(self) -> "Topology":
        """The mesh as declared. Raises TopologyInvalid, ConfigInvalid."""
        from mesh.app.wiring import load_topology, recorded_topology
        from mesh.core.topology.digest import digest_of

        if self.options.topology is None and (recorded := recorded_topology(self.settings)) is not None:
            return recorded
        topology = load_topology(self.settings.topology)
        if topology.chaos or not (self._chaos or self.settings.chaos):
            return topology
        topology = replace(topology, chaos=True)
        return replace(topology, digest=digest_of(topology))

    def use_recording(self, path: str) -> None:
        """Read this file of `mesh run export` in place of the log, and its topology unless one is named."""
        self.options = self.options._replace(log=f"recording:{path}")

    def of_target(self, log: str | None, topology: str | None) -> "Session":
        """Return the session of a mesh that gets what this one reads: of another log, or under another topics.yaml.

        Without these it is the mesh of this session; in place of a file, that of the settings.
        """
        options = self.options._replace(log=log or self._live_log, topology=topology or self.options.topology)
        target = Session(options)
        target.output = self.output
        return target

    def override_topology(self, path: str, *, chaos: bool = False) -> None:
        """Use this file instead of the setting. With `chaos`, its agents may be broken on purpose.

        Call it before the topology is first read.
        """
        self._chaos = chaos
        self.options = self.options._replace(topology=path)

    @asynccontextmanager
    async def log(self, *, create: bool = False) -> AsyncIterator["Log"]:
        """Open the log, and close it afterwards. A missing embedded file is made only with `create`.

        Raises NotFound for a missing file, ForeignLog if the log belongs to another mesh.
        """
        from mesh.adapters.clock import SystemClock
        from mesh.app.wiring import open_log
        from mesh.runtime.topology_store import expect_own_log

        if not create:
            _require_file(self.settings.log)
        log = open_log(self.settings, client="mesh-cli")
        await log.start()
        try:
            await expect_own_log(log, self.topology, SystemClock())
            yield log
        finally:
            await log.close()

    async def create_embedded_topics(self, log: "Log") -> None:
        """Create missing topics in an embedded file, as one of an older version has them. Kafka needs a command."""
        from mesh.app.wiring import topic_specs

        if embedded_path(self.settings.log) is not None:
            await log.create_topics(topic_specs(self.topology))

    @asynccontextmanager
    async def read_log(self) -> AsyncIterator["ReadLog"]:
        """Open the log for reading only, and close it afterwards. Raises NotFound and ForeignLog as `log` does."""
        from mesh.adapters.clock import SystemClock
        from mesh.app.wiring import open_read_log
        from mesh.runtime.topology_store import expect_own_log, missing_mesh

        _require_file(self.settings.log)
        log = open_read_log(self.settings, client="mesh-cli")
        await log.start()
        try:
            notes = [] if self._noted else getattr(log, "notes", ())
            self._noted = True
            for note in notes:
                self.output.warn((f"{short(self.settings.log)}: ", "yellow"), note)
            await expect_own_log(log, self.topology, SystemClock(), reads=True)
            yield log
        except NotFound as error:
            if (foreign := await missing_mesh(log, self.topology, SystemClock())) is not None:
                raise foreign from error
            raise
        finally:
            await log.close()

    @asynccontextmanager
    async def board(self, *, create: bool = False) -> AsyncIterator["Board"]:
        """Open the board, and close it afterwards. Raises NotFound as `log` does."""
        from mesh.app.wiring import open_board

        if not create:
            _require_file(self.settings.board or self.settings.log)
        board = open_board(self.settings, self.topology.prefix)
        await board.start()
        try:
            yield board
        finally:
            await board.close()

    def require_agents(self, names: Iterable[str]) -> None:
        """Raise NotFound for the first of these names that is no agent of the topology, with a suggestion."""
        from mesh.core.suggest import did_you_mean

        known = self.topology.agents
        for name in names:
            if name not in known:
                remedy = did_you_mean(name, known, f"Known: {', '.join(known)}")
                raise NotFound(f"no agent is called {name[:128]!r}", where=self.topology.path, remedy=remedy)


def embedded_path(url: str) -> Path | None:
    """The file of an embedded log or board; None for others."""
    scheme, _, rest = url.partition(":")
    return Path(rest.removeprefix("//")) if scheme == "sqlite" else None


def short(url: str) -> str:
    """An address for output: a file relative to the working directory, secrets masked."""
    from mesh.core.redaction import mask_address

    scheme, _, rest = url.partition(":")
    path = Path(rest) if scheme == "recording" else embedded_path(url)
    if path is None:
        return mask_address(url)
    try:
        return f"{scheme}:{path.absolute().relative_to(Path.cwd())}"
    except ValueError:
        return f"{scheme}:{path}"


def _require_file(url: str) -> None:
    path = embedded_path(url)
    if path is None or path.is_file():
        return
    if path.exists():
        raise ConfigInvalid("this is not a file", where=short(url), expected="the mesh's embedded file")
    raise NotFound("no mesh here yet", where=short(url), remedy="`mesh demo` shows one, `mesh up` starts yours")
