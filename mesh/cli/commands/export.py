"""`mesh export`: manifests and rights for the systems that run this mesh, made from topics.yaml."""

from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.framework.completion import agents as agent_names
from mesh.cli.framework.options import command, noun
from mesh.cli.framework.session import Session
from mesh.core.errors import NotFound
from mesh.core.suggest import did_you_mean
from mesh.core.topology.yaml_nodes import to_yaml

if TYPE_CHECKING:
    from mesh.operations.deployment.manifests import Manifest, ManifestOptions

app = noun("Print manifests for Kubernetes and KEDA, and rights on Kafka.")

Agents = Annotated[
    list[str] | None,
    typer.Argument(metavar="AGENT", autocompletion=agent_names, help="only the workers of these; default: everything"),
]
Namespace = Annotated[str, typer.Option(metavar="NAME", help="default: that of kubectl")]
SecretName = Annotated[str, typer.Option("--secret", metavar="NAME", help="the Secret with passwords and TLS files")]


@command(
    app, "k8s", example="mesh export k8s --log kafka://kafka:9092 --board redis://redis:6379/0 | kubectl apply -f -"
)
def k8s(
    session: Session,
    agents: Agents = None,
    *,
    image: Annotated[str, typer.Option(metavar="IMAGE", help="with your agents and topics.yaml in it")] = "agent-mesh",
    namespace: Namespace = "",
    secret: SecretName = "agent-mesh",
) -> None:
    """Print Deployments: orchestrator, intake, and the workers of each agent; and the Job that creates topics.

    --log and --board are addresses inside the cluster. Other settings become environment variables. Passwords are read
    from a Secret, which is not printed; the keys that it needs are listed on stderr.
    """
    from mesh.operations.deployment.manifests import ManifestOptions
    from mesh.operations.deployment.manifests import k8s as made

    named = _agents_in_order(session, agents or [])
    options = ManifestOptions(image=image, namespace=namespace, secret=secret)
    _print(session, "k8s", options, list(made(session.topology, session.loaded, options, named)))


@command(app, "keda", example="mesh export keda --min 0 --log kafka://kafka:9092 --board redis://redis:6379/0")
def keda(
    session: Session,
    agents: Agents = None,
    *,
    least: Annotated[int, typer.Option("--min", min=0, metavar="N", help="workers of an agent that has no work")] = 1,
    most: Annotated[
        int | None, typer.Option("--max", min=1, metavar="N", help="workers of an agent; default: its partitions")
    ] = None,
    namespace: Namespace = "",
    secret: SecretName = "agent-mesh",
) -> None:
    """Print a KEDA ScaledObject for each agent: workers by the lag of its group.

    They scale the Deployments of `mesh export k8s`. An agent has at most as many workers as its topic has partitions.
    """
    from mesh.operations.deployment.manifests import ManifestOptions
    from mesh.operations.deployment.manifests import keda as made

    named = _agents_in_order(session, agents or [])
    options = ManifestOptions(namespace=namespace, secret=secret, replicas_min=least, replicas_max=most)
    _print(session, "keda", options, list(made(session.topology, session.loaded, options, named)))


@command(app, "acl", example="mesh export acl --log kafka://kafka:9092 intake orchestrator worker | sh")
def acl(
    session: Session,
    services: Annotated[
        list[str] | None, typer.Argument(metavar="SERVICE", help="only the rights of these; default: of all")
    ] = None,
    *,
    principal: Annotated[
        str, typer.Option(metavar="PATTERN", help="principal of a service; {service} and {mesh} are replaced")
    ] = "User:{mesh}-{service}",
) -> None:
    """Print the rights that each service needs on Kafka, as commands of kafka-acls.sh.

    The mesh needs exactly these rights. --json prints one right a line. Services are intake,
    orchestrator, worker, client (Mesh.connect, mesh publish), operator (all other commands), sender and receiver
    (systems outside). docs/guide/security.md says what each of them could do with its rights.
    """
    from mesh.operations.deployment.acl import SERVICES, acl_commands, rights

    topology, output = session.topology, session.output
    for name in services or ():
        if name not in SERVICES:
            remedy = did_you_mean(name, SERVICES, f"Known: {', '.join(SERVICES)}")
            raise NotFound(f"no service is called {name!r}", where="mesh export acl", remedy=remedy)
    wanted = list(rights(topology, [name for name in SERVICES if not services or name in services]))
    principals = {name: principal.format(service=name, mesh=topology.name) for name in SERVICES}
    for right in wanted:
        output.emit({**right._asdict(), "principal": principals[right.service]})
    scheme, _, rest = session.settings.log.partition(":")
    bootstrap = rest.removeprefix("//").rpartition("@")[2] if scheme == "kafka" else "BROKER:9092"
    output.print_raw(f"# mesh export acl: made from {topology.name}, topology {topology.digest}\n")
    output.print_raw("".join(f"{line}\n" for line in acl_commands(wanted, principals, bootstrap)))


def _print(session: Session, what: str, options: "ManifestOptions", manifests: "list[Manifest]") -> None:
    from mesh.operations.deployment.manifests import secret_keys

    output = session.output
    for manifest in manifests:
        output.emit(manifest)
    output.print_raw(f"# mesh export {what}: made from {session.topology.name}, topology {session.topology.digest}\n")
    output.print_raw(to_yaml(manifests))
    if keys := secret_keys(session.settings):
        output.note(f"the Secret {options.secret!r} must have the keys {', '.join(keys)}")


def _agents_in_order(session: Session, names: list[str]) -> list[str]:
    """The named agents in the order of topics.yaml. Raises NotFound for a name that is no agent."""
    session.require_agents(names)
    return [name for name in session.topology.agents if name in names]
