"""The tree of errors. Each names what is wrong, where, what was expected, what was found, and the fix.

Expected outcomes (a refused hop, a failed task) are values, not errors: see `run.lineage.Refusal` and `task.result`.
`retriable`: whether the same call may succeed later. `exit_code`: the exit code of the command line. `str()` masks
secrets.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from mesh.core.redaction import mask


class MeshError(Exception):
    """Root of every error raised by this package."""

    code: ClassVar[str] = "mesh_error"
    retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", got: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __str__(self) -> str:
        return mask(self._sentence())

    def _sentence(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            text += f"; expected {self.expected}"
        if self.got:
            text += f", got {self.got}" if self.expected else f"; got {self.got}"
        return f"{text}. {self.remedy}" if self.remedy else text


class InvalidInput(MeshError):
    """An argument of the caller is invalid: an id, a payload, an option. `code` is one of `reason_codes.REASONS`."""

    exit_code = 2

    def __init__(
        self, what: str, *, code: str, where: str = "", expected: str = "", got: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, where=where, expected=expected, got=got, remedy=remedy)
        self.code = code  # type: ignore[misc]  # an instance narrows the class's code


class Candidate(NamedTuple):
    """One of several runs that go by a name. `repeats`: the run that a resend repeated by it, or empty."""

    run_id: str
    opened_ms: int
    state: str
    type: str
    repeats: str


class Ambiguous(InvalidInput):
    """A name that several runs have. `candidates`: the latest of them, the newest first."""

    def __init__(self, name: str, candidates: Sequence[Candidate], *, count: str, remedy: str) -> None:
        super().__init__(
            f"{count} runs go by that name",
            code="ambiguous",
            where=name[:128],
            expected="one run",
            got=", ".join(each.run_id for each in candidates),
            remedy=remedy,
        )
        self.name = name
        self.candidates = tuple(candidates)


class ConfigInvalid(MeshError):
    """A setting is unknown, malformed or contradicts another."""

    code = "config_invalid"
    exit_code = 2


class ForeignLog(ConfigInvalid):
    """The topics with this prefix belong to a mesh of another name."""

    code = "foreign_log"


class Problem(NamedTuple):
    """One finding in a file: its line, what is wrong, and the fix."""

    line: int
    what: str
    remedy: str


class TopologyInvalid(MeshError):
    """topics.yaml was refused; `problems` lists all findings, ordered by line."""

    code = "topology_invalid"
    exit_code = 2

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problem{'s' if len(problems) != 1 else ''}", where=path)
        self.path = path
        self.problems = tuple(problems)

    def __str__(self) -> str:
        # Line by line: what looks like the beginning of a secret must not mask the lines after it.
        return "\n".join(mask(f"{self.path}:{p.line}: {p.what}. {p.remedy}".rstrip()) for p in self.problems)


class NotFound(MeshError):
    """The named run, topic, agent or dead letter does not exist."""

    code = "not_found"
    exit_code = 3


class Unavailable(MeshError):
    """An outside system did not answer before the deadline, or answered that it cannot."""

    code = "unavailable"
    retriable = True
    exit_code = 4


class EnvironmentFault(Unavailable):
    """The machine lacks what a process needs: open files, memory, disk, threads."""

    code = "environment"


class LogUnavailable(Unavailable):
    """The log (Kafka or the embedded file) could not be reached or did not answer in time."""

    code = "log_unavailable"


class BoardUnavailable(Unavailable):
    """The board (Redis or the embedded file) could not be reached or did not answer in time."""

    code = "board_unavailable"


class BoardIncomplete(BoardUnavailable):
    """The board began a new incarnation, and lost values are not restored yet."""

    code = "board_incomplete"


class TopicsInvalid(MeshError):
    """Topics are missing or differ from their declaration; `problems` names all of them."""

    code = "topics_invalid"
    exit_code = 1

    def __init__(self, where: str, problems: Sequence[str], *, remedy: str) -> None:
        super().__init__("; ".join(problems), where=where, remedy=remedy)
        self.problems = tuple(problems)


class Fenced(MeshError):
    """A commit came from a member of a past generation; its partitions belong to another member now."""

    code = "fenced"


class NotRestorable(MeshError):
    """Neither its checkpoint nor the remaining records give the state of an inbox partition."""

    code = "not_restorable"


class WorkerSpent(MeshError):
    """A worker ended in good order because too many calls of agents continued after they were cancelled."""

    code = "worker_spent"
    exit_code = 7


class NotAccepted(MeshError):
    """The mesh refused: a limit, a policy, or a change that needs `--yes`. `code` may be that of the reason."""

    code = "refused"
    exit_code = 5

    def __init__(
        self, what: str, *, code: str = "", where: str = "", expected: str = "", got: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, where=where, expected=expected, got=got, remedy=remedy)
        if code:
            self.code = code  # type: ignore[misc]  # an instance narrows the class's code


class Conflict(MeshError):
    """A compare-and-set found another version than expected; `current` is the present version."""

    code = "stale_version"
    retriable = True
    exit_code = 5

    def __init__(self, key: str, *, expected: str, current: str) -> None:
        super().__init__(
            f"another writer changed board key {key!r}",
            expected=f"version {expected or '(absent)'}",
            got=current or "(absent)",
            remedy="Read it again and repeat the change on the new value",
        )
        self.key = key
        self.current = current


class WaitTimeout(MeshError):
    """The awaited event did not happen before the caller's deadline. The wait cancelled nothing."""

    code = "wait_timeout"
    retriable = True
    exit_code = 6


def leaf_errors(error: BaseException) -> list[BaseException]:
    """Return the errors in a group of groups; for a plain error, a list of it."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaf_errors(inner)]
    return [error]


def in_plain_words(error: Exception) -> str:
    """Say why values that were stored cannot be read, without names of Python."""
    if isinstance(error, KeyError):
        return f"the field {error.args[0]!r} is missing"
    return str(error) if isinstance(error, ValueError) else "a value is of the wrong type"
