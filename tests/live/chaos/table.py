"""Every fault, and the fields on which they act."""

from tests.live.chaos.fault import Fault
from tests.live.chaos.faults_board import BOARD, BoardFault
from tests.live.chaos.faults_content import CONTENT
from tests.live.chaos.faults_log import CLUSTER, LOG
from tests.live.chaos.faults_outside import OUTSIDE
from tests.live.chaos.faults_processes import PROCESSES

ON_KAFKA: dict[str, Fault] = {fault.id: fault for fault in (*PROCESSES, *LOG, *CONTENT, *OUTSIDE)}
"""One broker, Redis."""
ON_CLUSTER: dict[str, Fault] = {fault.id: fault for fault in CLUSTER}
"""Three brokers, Redis."""
ON_FILE: dict[str, Fault] = {id: ON_KAFKA[id] for id in ("F01", "F02", "F03", "F03i", "F19", "F22", "F37")}
"""The embedded log: several processes share one file."""
ON_BOARD: dict[str, BoardFault] = {fault.id: fault for fault in BOARD}
"""Redis alone."""
