"""The errors of the public API. All are MeshError: `where`, `expected`, `got` and `remedy` say what to do.

An agent meets BoardUnavailable, BoardIncomplete and Conflict (from `ctx.board`), and InvalidInput. Upstream code meets
InvalidInput and NotAccepted (the request), WaitTimeout (the run goes on), LogUnavailable. Setting up a mesh raises
ConfigInvalid, ForeignLog, TopologyInvalid and TopicsInvalid.
"""

from mesh.core.errors import (
    BoardIncomplete,
    BoardUnavailable,
    ConfigInvalid,
    Conflict,
    ForeignLog,
    InvalidInput,
    LogUnavailable,
    MeshError,
    NotAccepted,
    NotFound,
    TopicsInvalid,
    TopologyInvalid,
    Unavailable,
    WaitTimeout,
)

__all__ = [
    "BoardIncomplete",
    "BoardUnavailable",
    "ConfigInvalid",
    "Conflict",
    "ForeignLog",
    "InvalidInput",
    "LogUnavailable",
    "MeshError",
    "NotAccepted",
    "NotFound",
    "TopicsInvalid",
    "TopologyInvalid",
    "Unavailable",
    "WaitTimeout",
]
