"""The cluster on the command line: kubectl's connection flags, and how agents are to run in it.

``KubectlFlags`` is for commands that only ask the API, ``ClusterOptions`` for those that start
agents. What they lead to is imported when a cluster is really wanted: the Kubernetes client costs a
quarter of a second.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from kptrace.cli.options import PLAIN, Options
from kptrace.kube.agents.manifest import IMAGE
from kptrace.kube.client.client_config import ClientConfig, seconds

if TYPE_CHECKING:
    from kptrace.kube.agents.manifest import AgentPodOptions
    from kptrace.kube.client.client import Client


class Profile(StrEnum):
    NETADMIN = "netadmin"
    SYSADMIN = "sysadmin"


class KubectlFlags(Options):
    """kubectl's, in its own words."""

    heading: ClassVar[str] = "The cluster, as with kubectl"

    namespace: Annotated[
        str,
        typer.Option(
            "-n",
            "--namespace",
            metavar="NAME",
            rich_help_panel=PLAIN,
            help="Namespace (default: the context's).",
        ),
    ] = ""
    context: Annotated[
        str, typer.Option("--context", metavar="NAME", help="Context in the kubeconfig.")
    ] = ""
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="Cluster in the kubeconfig.")
    ] = ""
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="User in the kubeconfig.")] = (
        ""
    )
    kubeconfig: Annotated[
        str,
        typer.Option(
            "--kubeconfig",
            metavar="FILE",
            help="Kubeconfig file (default: $KUBECONFIG, ~/.kube/config).",
        ),
    ] = ""
    server: Annotated[
        str, typer.Option("-s", "--server", metavar="URL", help="URL of the API server.")
    ] = ""
    token: Annotated[
        str, typer.Option("--token", metavar="TOKEN", help="Bearer token for the API server.")
    ] = ""
    as_user: Annotated[str, typer.Option("--as", metavar="NAME", help="User to impersonate.")] = ""
    as_group: Annotated[
        list[str] | None,
        typer.Option("--as-group", metavar="NAME", help="Group to impersonate (repeatable)."),
    ] = None
    as_uid: Annotated[str, typer.Option("--as-uid", metavar="UID", help="UID to impersonate.")] = ""
    request_timeout: Annotated[
        str,
        typer.Option(
            "--request-timeout",
            metavar="TIME",
            help="Timeout for a single API request (5s, 2m). 0 uses the default (15s).",
        ),
    ] = "0"
    certificate_authority: Annotated[
        str,
        typer.Option(
            "--certificate-authority",
            metavar="FILE",
            help="Path to a CA certificate file.",
        ),
    ] = ""
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure-skip-tls-verify", help="Do not verify the API server's certificate."
        ),
    ] = False
    tls_server_name: Annotated[
        str,
        typer.Option(
            "--tls-server-name", metavar="NAME", help="Server name that the certificate must have."
        ),
    ] = ""

    @property
    def connection(self) -> ClientConfig:
        return ClientConfig(
            namespace=self.namespace,
            context=self.context,
            cluster=self.cluster,
            user=self.user,
            kubeconfig=self.kubeconfig,
            server=self.server,
            token=self.token,
            as_user=self.as_user,
            as_groups=tuple(self.as_group or ()),
            as_uid=self.as_uid,
            timeout=seconds(self.request_timeout),
            certificate_authority=self.certificate_authority,
            insecure=self.insecure,
            tls_server_name=self.tls_server_name,
        )

    @property
    def elsewhere(self) -> bool:
        """A cluster is named, so it is not the one that we may run in."""
        return bool(self.kubeconfig or self.context or self.cluster or self.server)

    @property
    def client(self) -> Client:
        return _client(self.connection)


class ClusterOptions(KubectlFlags):
    heading: ClassVar[str] = "Agents in the cluster"
    image: Annotated[
        str,
        typer.Option(
            "--image",
            metavar="IMAGE",
            envvar="KPTRACE_IMAGE",
            help="Image of the agents; any with Python 3.11 or newer.",
        ),
    ] = IMAGE
    agent_namespace: Annotated[
        str,
        typer.Option(
            "--agent-namespace", metavar="NAME", help="Namespace of the agent pods (default: -n)."
        ),
    ] = ""
    profile: Annotated[
        Profile,
        typer.Option("--profile", help="Rights of the agents: some capabilities, or privileged."),
    ] = Profile.NETADMIN
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the agent pods and the RBAC rules; start nothing."),
    ] = False
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep the agent pods after the run (they expire after 1 h)."),
    ] = False

    @property
    def terms(self) -> AgentPodOptions:
        from kptrace.kube.agents.manifest import AgentPodOptions

        return AgentPodOptions(
            image=self.image,
            namespace=self.agent_namespace or self.client.namespace,
            profile=self.profile.value,
            keep=self.keep,
        )


@cache
def _client(connection: ClientConfig) -> Client:
    from kptrace.kube.client.client import Client

    return Client(connection)
