"""``kptrace lab``: the verbs of the lab on the command line.

Only words stand here; what they do is in the modules that each command imports. Errors are raised
as they are in kptrace.errors, for ``kptrace.cli`` to print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kptrace.lab.state import Lab

app = typer.Typer(
    help="A small cluster of network namespaces on this machine, and faults to inject.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Name = Annotated[
    str,
    typer.Option("--name", metavar="NAME", help="Name of the lab; several can exist side by side."),
]


@app.command()
def up(
    name: Name = "default",
    nodes: Annotated[int, typer.Option(metavar="N", help="Number of nodes, 2 to 9.")] = 2,
    proxy: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="kube-proxy's mode: iptables, iptables-legacy, nftables or ipvs; or cilium, a "
            "load balancer at connect().",
        ),
    ] = "iptables",
    network: Annotated[
        str,
        typer.Option(
            metavar="NETWORK",
            help="Flannel: vxlan, host-gw, flannel-ipip. Calico: calico-ipip, "
            "calico-crosssubnet, calico-vxlan, calico-direct. No network plugin but the bridge: "
            "bridge. With --proxy cilium: cilium-vxlan, cilium-direct.",
        ),
    ] = "vxlan",
    scheduler: Annotated[
        str, typer.Option(metavar="NAME", help="Of ipvs: rr, lc, sh, wrr, wlc, dh or mh.")
    ] = "rr",
) -> None:
    """Make a lab: nodes, pods, DNS, Services and their rules."""
    from kptrace.lab import address_plan, cluster

    lab = cluster.up(address_plan.plan(name, nodes, proxy, network, scheduler))
    flag, option = ("--lab", "") if name == "default" else (f"--lab-name {name}", f" --name {name}")
    typer.echo(
        f"lab {name} is up: {nodes} nodes, {len(lab.plan.pods)} pods,"
        f" proxy {proxy}, network {network}\n"
        f"  look:   kptrace lab status{option}\n"
        f"  trace:  kptrace svc/remote -n shop --from pod/client {flag}\n"
        f"  break:  kptrace lab faults{option}"
        + (f"\n  join:   {_join(lab)}" if lab.plan.cilium else "")
    )


def _join(lab: Lab) -> str:
    """How a shell becomes a client that the programs at connect() see."""
    from kptrace.lab import state

    directory = state.cgroup(lab.plan, lab.nodes[0])
    return f"echo $$ > {directory}/cgroup.procs  # a shell of that node"


@app.command()
def down(name: Name = "default") -> None:
    """Delete a lab, including a partially created one."""
    from kptrace.lab import cluster

    cluster.down(name)
    typer.echo(f"lab {name} is gone")


@app.command()
def status(
    name: Name = "default",
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FORM", help="text or json.")
    ] = "text",
) -> None:
    """List a lab's nodes, Services, pods and faults."""
    import msgspec

    from kptrace.lab import state
    from kptrace.lab import status as lab_status
    from kptrace.model.errors import UsageError

    if output not in ("text", "json"):
        raise UsageError(f"-o {output!r} is none of: text, json")
    current = lab_status.status(state.load(name))
    if output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(current), indent=2))
    else:
        typer.echo(lab_status.text(current))


@app.command("break")
def break_(
    fault: Annotated[
        str, typer.Argument(metavar="FAULT", help="Name of the fault (see kptrace lab faults).")
    ],
    name: Name = "default",
) -> None:
    """Put a fault into a lab."""
    from kptrace.lab.faults import inject

    chosen_fault = inject.find(fault)
    inject.inject(name, chosen_fault)
    typer.echo(f"broken: {chosen_fault.words}\n  see it: {inject.how_to_see(chosen_fault, name)}")


@app.command()
def heal(
    fault: Annotated[
        str, typer.Argument(metavar="FAULT", help="Name of the fault (default: all).")
    ] = "",
    name: Name = "default",
) -> None:
    """Undo one fault, or all."""
    from kptrace.lab.faults import inject

    healed = inject.heal(name, fault)
    typer.echo(f"healed: {', '.join(fault.name for fault in healed) or 'nothing was broken'}")


@app.command("faults")
def faults_(name: Name = "default") -> None:
    """List what can be broken, and how to see it."""
    from kptrace.lab.faults import inject

    typer.echo(inject.listing(name))
