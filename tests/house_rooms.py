"""The tree as data: which layers and rooms there are, and what each may import. tests/house.py reads it.

`mesh.core.*` stands for the files that lie directly in mesh/core, any other name for all below it. A place may import
itself, too. An entry of MAY_IMPORT imports only earlier ones, so no circle is possible.
"""

from typing import Final

_BASIS: Final = ("mesh.core.*", "mesh.core.expression", "mesh.core.protocol", "mesh.core.topology")
_RUN: Final = (
    *_BASIS,
    "mesh.core.selection",
    "mesh.core.run",
    "mesh.core.ingress",
    "mesh.core.state",
    "mesh.core.publishing",
)
_BELOW_SERVICES: Final = ("mesh.core", "mesh.adapters", "mesh.runtime", "mesh.context", "mesh.settings")
_BELOW_CLI: Final = (
    *_BELOW_SERVICES,
    "mesh.operations",
    "mesh.services",
    "mesh.app",
    "mesh.client",
    "mesh.examples",
    "mesh.cli.framework",
)

MAY_IMPORT: Final[dict[str, tuple[str, ...]]] = {
    "mesh.core.*": (),
    "mesh.core.expression": ("mesh.core.*",),
    "mesh.core.protocol": ("mesh.core.*",),
    "mesh.core.topology": ("mesh.core.*", "mesh.core.expression"),
    "mesh.core.payload": ("mesh.core.*", "mesh.core.protocol"),
    "mesh.core.selection": _BASIS,
    "mesh.core.board": _BASIS,
    "mesh.core.scaling": _BASIS,
    "mesh.core.run": _BASIS,
    "mesh.core.ingress": _BASIS,
    "mesh.core.state": (*_BASIS, "mesh.core.run", "mesh.core.ingress"),
    "mesh.core.publishing": (*_BASIS, "mesh.core.run", "mesh.core.ingress", "mesh.core.state"),
    "mesh.core.task": (*_RUN, "mesh.core.payload"),
    "mesh.core.dead_letters": _RUN,
    "mesh.core.history": _RUN,
    "mesh.core.metrics": _RUN,
    "mesh.core.health": (*_RUN, "mesh.core.scaling", "mesh.core.metrics"),
    "mesh.core.verification": _RUN,
    "mesh.core.replay": (
        *_RUN,
        "mesh.core.board",
        "mesh.core.dead_letters",
        "mesh.core.history",
        "mesh.core.verification",
    ),
    "mesh.adapters": ("mesh.core",),
    "mesh.runtime": ("mesh.core", "mesh.adapters"),
    "mesh.context": ("mesh.core", "mesh.adapters.ports"),
    "mesh.settings": ("mesh.core",),
    "mesh.errors": ("mesh.core.*",),
    "mesh.examples": (),
    "mesh.operations": ("mesh.core", "mesh.adapters", "mesh.runtime", "mesh.settings"),
    "mesh.operations.replay": (
        "mesh.core",
        "mesh.adapters.ports",
        "mesh.adapters.clock",
        "mesh.runtime",
        "mesh.operations",
    ),
    "mesh.services": _BELOW_SERVICES,
    "mesh.app.wiring": ("mesh.core", "mesh.adapters", "mesh.runtime", "mesh.settings"),
    "mesh.app": (*_BELOW_SERVICES, "mesh.services", "mesh.operations.replay", "mesh.app.wiring"),
    "mesh.client": ("mesh.core", "mesh.adapters", "mesh.runtime", "mesh.settings", "mesh.app.wiring"),
    "mesh.testing": ("mesh.core", "mesh.adapters", "mesh.settings", "mesh.app", "mesh.client", "mesh.context"),
    "mesh.faust": (*_BELOW_SERVICES, "mesh.services", "mesh.app"),
    "mesh.cli.framework": _BELOW_CLI,
    "mesh.cli.views": _BELOW_CLI,
    "mesh.cli.supervision": _BELOW_CLI,
    "mesh.cli.commands": (*_BELOW_CLI, "mesh.cli.views", "mesh.cli.supervision"),
    "mesh.cli": ("mesh",),
    "mesh.__main__": ("mesh.cli",),
    "mesh": ("mesh.core", "mesh.context", "mesh.client", "mesh.adapters.ports"),
}
"""Place → modules of the mesh that it may import."""
BACKENDS: Final = ("mesh.adapters.faust", "mesh.adapters.kafka", "mesh.adapters.redis", "mesh.adapters.sqlite")
"""Outside systems: none of them imports another, and a stem may be there once for each of them."""
READ_ONLY: Final = ("mesh/core/replay/", "mesh/operations/replay/", "mesh/operations/verification.py")
"""Rooms that read logs and never write: a replay changes nothing of the original."""
TESTED_LAYERS: Final = ("core", "adapters", "runtime", "services")
ROOM_FILES_MAX: Final = 15
ROOM_FILES: Final[dict[str, int]] = {}
"""Rooms that may have more files, each with its reason."""

SHARED_CLASSES: Final[dict[str, str]] = {
    "Held": "core/run/state.py stores its name; services/worker/assignment.py",
    "Result": "core/run/state.py stores its name; client.py, a public name",
    "Run": "core/run/state.py stores its name; client.py, a public name",
}
"""Public classes that share a name, each with the files that define it. No further one may."""

HOMES: Final[dict[str, tuple[str, ...]]] = {
    "aiokafka": ("mesh/adapters/kafka",),
    "fastapi": ("mesh/services/gateway",),
    "faust": ("mesh/adapters/faust", "agents/wordcount"),
    "opentelemetry": ("mesh/adapters/telemetry", "mesh/adapters/tracing"),
    "platformdirs": ("mesh/settings.py",),
    "pydantic_core": (
        "mesh/core/payload/json_encode.py",
        "mesh/core/payload/exact_serializer.py",
        "mesh/core/payload/revalidate.py",
    ),
    "prometheus_client": ("mesh/adapters/exposition",),
    "redis": ("mesh/adapters/redis",),
    "rich": ("mesh/cli",),
    "sqlite3": ("mesh/adapters/sqlite",),
    "starlette": ("mesh/adapters/exposition",),
    "structlog": ("mesh/adapters/diagnostics.py", "mesh/cli/framework/logs.py"),
    "typer": ("mesh/cli",),
    "click": ("mesh/cli",),
    "uvicorn": ("mesh/adapters/exposition",),
    "uuid_utils": ("mesh/client.py",),
    "yaml": ("mesh/core/topology/yaml_nodes.py", "mesh/core/topology/yaml_spans.py"),
}
"""Library → its home; that of fastapi comes with its service.
structlog has two: one writes log lines, the other renders them."""
