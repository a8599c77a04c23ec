"""The options of `mesh replay --resend`."""

from typing import Annotated, NamedTuple

import typer

from mesh.cli.framework.completion import types
from mesh.cli.framework.selectors import WhereOption

ResendOption = Annotated[
    bool, typer.Option("--resend", help="requests go into an ingress topic again; shows them, sends with --yes")
]
YesOption = Annotated[bool, typer.Option("--yes", help="with --resend: send")]
RateOption = Annotated[
    str | None, typer.Option("--rate", metavar="N/s", help="with --resend: at most N requests a second")
]
IntoOption = Annotated[
    str, typer.Option("--into", metavar="TOPIC", help="with --resend: only requests that come in by this topic")
]
ToLogOption = Annotated[
    str | None, typer.Option("--to-log", metavar="URL", help="with --resend: to the mesh on this log")
]
ToTopologyOption = Annotated[
    str | None,
    typer.Option("--to-topology", metavar="FILE", help="with --resend: to the mesh of this topics.yaml"),
]
KeepIdsOption = Annotated[
    bool, typer.Option("--keep-ids", help="with --resend: requests keep their ids, for another mesh")
]
AgainOption = Annotated[bool, typer.Option("--again", help="with --resend: also requests that were sent before")]
TypeOption = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help="with --resend: only this type of event", autocompletion=types),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="GLOB", help="with --resend: only keys on the ingress topic that match: o-*"),
]


class SendOptions(NamedTuple):
    """The options of --resend, as they are given."""

    resend: ResendOption = False
    yes: YesOption = False
    rate: RateOption = None
    into: IntoOption = ""
    to_log: ToLogOption = None
    to_topology: ToTopologyOption = None
    keep_ids: KeepIdsOption = False
    again: AgainOption = False
    type: TypeOption = None
    key: KeyOption = None
    condition: WhereOption = None
