"""A playbook whose events are folded into steps, too."""

from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import StoredRecord
from mesh.core.replay.reasons import Consequence, reasons_of
from mesh.core.replay.steps import Step, Steps
from mesh.core.topology.model import Topology
from tests.builders import RUN_ID, record
from tests.playbook import Move, Playbook


class Recorded:
    """The records of a run, and its steps."""

    def __init__(self, mesh: Topology) -> None:
        self.play = Playbook(mesh)
        self.records: list[StoredRecord] = []
        self.folded = Steps(mesh, RUN_ID, partition=partition_of(RUN_ID.encode(), mesh.inbox_partitions))

    def let(self, *moves: Move) -> "Recorded":
        for move in moves:
            self.play.let(move)
            assert self.play.last is not None
            self.take(record(self.play.last, len(self.records)))
        return self

    def take(self, stored: StoredRecord) -> Step | None:
        self.records.append(stored)
        return self.folded.take(stored)

    @property
    def steps(self) -> list[Step]:
        return self.folded.steps

    def reasons(self) -> list[Consequence]:
        """Return the reasons of the last step."""
        return reasons_of(self.steps[-1])

    def why(self, name: str) -> str:
        """Rule and sentence of the last step's effect of this name."""
        (found,) = (reason for reason in self.reasons() if reason.name == name)
        return f"{found.rule}: {found.text}"
