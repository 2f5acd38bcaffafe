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
            help="The namespace; default: the context's.",
        ),
    ] = ""
    context: Annotated[
        str, typer.Option("--context", metavar="NAME", help="The context of the kubeconfig.")
    ] = ""
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="The cluster of the kubeconfig.")
    ] = ""
    user: Annotated[
        str, typer.Option("--user", metavar="NAME", help="The user of the kubeconfig.")
    ] = ""
    kubeconfig: Annotated[
        str,
        typer.Option(
            "--kubeconfig", metavar="FILE", help="The file; default: $KUBECONFIG, ~/.kube/config."
        ),
    ] = ""
    server: Annotated[
        str, typer.Option("-s", "--server", metavar="URL", help="The API server's URL.")
    ] = ""
    token: Annotated[
        str, typer.Option("--token", metavar="TOKEN", help="A bearer token for the API server.")
    ] = ""
    as_user: Annotated[str, typer.Option("--as", metavar="NAME", help="A user to impersonate.")] = (
        ""
    )
    as_group: Annotated[
        list[str] | None,
        typer.Option("--as-group", metavar="NAME", help="A group to impersonate; repeatable."),
    ] = None
    as_uid: Annotated[
        str, typer.Option("--as-uid", metavar="UID", help="A UID to impersonate.")
    ] = ""
    request_timeout: Annotated[
        str,
        typer.Option(
            "--request-timeout",
            metavar="TIME",
            help="For one request, with a unit: 5s, 2m; 0: ours.",
        ),
    ] = "0"
    certificate_authority: Annotated[
        str,
        typer.Option(
            "--certificate-authority",
            metavar="FILE",
            help="A file with the authority's certificate.",
        ),
    ] = ""
    insecure: Annotated[
        bool,
        typer.Option("--insecure-skip-tls-verify", help="Trust whatever certificate it shows."),
    ] = False
    tls_server_name: Annotated[
        str,
        typer.Option(
            "--tls-server-name", metavar="NAME", help="The name that its certificate must have."
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
            help="The agents' image; any with Python 3.11 will do.",
        ),
    ] = IMAGE
    agent_namespace: Annotated[
        str,
        typer.Option(
            "--agent-namespace", metavar="NAME", help="Where agents' pods are made; default: -n."
        ),
    ] = ""
    profile: Annotated[
        Profile,
        typer.Option("--profile", help="Agents' rights: some capabilities, or privileged."),
    ] = Profile.NETADMIN
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the agents' pods and the RBAC; start nothing.")
    ] = False
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the agents' pods; they end after an hour.")
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
