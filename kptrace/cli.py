"""The command line: flags in, exit code out.

Everything heavy is imported inside the command that needs it, so ``--help`` costs what typer costs
and ``--version`` nothing at all. This is the only file that writes to stdout, and the only one
that turns an error into a message and an exit code.

Exit codes: 0 the outcome is the expected one, 1 it is another, 2 wrong usage, 3 it could not be
looked at, 4 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from kptrace.errors import KptraceError, Usage
from kptrace.lab.commands import app as lab_app
from kptrace.model import Outcome

if TYPE_CHECKING:
    from contextlib import ExitStack

    from kptrace.explain import State
    from kptrace.model import Explanation, Question, Trace
    from kptrace.run import Run

COMMANDS = ("trace", "explain", "replay", "lab", "causes")

INTERRUPTED = 130


class Form(StrEnum):
    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"


class When(StrEnum):
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Via(StrEnum):
    CLUSTER_IP = "clusterIP"
    NODE_PORT = "nodePort"
    EXTERNAL_IP = "externalIP"
    LOAD_BALANCER = "loadBalancer"


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Follow one packet from a pod to a Service, and prove each step by the kernel's word.

\b
  kptrace svc/web --lab            trace it (`trace` may be left out)
  kptrace lab up                   make a small cluster of network namespaces
  kptrace lab faults               what can be broken in it, and how to see it
""",
)

Output = Annotated[Form, typer.Option("-o", "--output", help="How to print the report.")]
Color = Annotated[When, typer.Option("--color", help="Colour: on a terminal, always or never.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from kptrace import __version__

        _print(f"kptrace {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


@app.command(short_help="Trace one packet to a Service, a pod, a name or an address.")
def trace(
    target: Annotated[
        str,
        typer.Argument(help="svc/web, svc/web:http, web.shop, pod/x:8080, 10.96.0.10:53/udp"),
    ],
    source: Annotated[
        str, typer.Option("--from", help="pod/NAME or node/NAME; default: a pod of the namespace")
    ] = "",
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="Of the target and of --from pod/NAME.")
    ] = "default",
    via: Annotated[
        Via, typer.Option("--via", help="Which of the Service's addresses to use.")
    ] = Via.CLUSTER_IP,
    node: Annotated[
        str, typer.Option("--node", help="With --via nodePort: the node whose address is used.")
    ] = "",
    ipv4: Annotated[bool, typer.Option("-4", help="IPv4 only.")] = False,
    ipv6: Annotated[bool, typer.Option("-6", help="IPv6 only.")] = False,
    count: Annotated[
        int, typer.Option("--count", min=1, max=200, help="How many flows to send.")
    ] = 1,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=60, help="Seconds to wait for an answer.")
    ] = 4.0,
    expect: Annotated[
        list[Outcome] | None,
        typer.Option(
            "--expect",
            metavar="OUTCOME",
            help="The outcome that exits 0 (default: delivered); may be given more than once. One "
            f"of: {', '.join(Outcome)}.",
        ),
    ] = None,
    trace_rule: Annotated[
        bool,
        typer.Option(
            "--trace-rule",
            help="Where the kernel has no nftables: allow a temporary TRACE rule in raw.",
        ),
    ] = False,
    lab: Annotated[bool, typer.Option("--lab", help="Trace in the lab named `default`.")] = False,
    lab_name: Annotated[
        str, typer.Option("--lab-name", help="Trace in the lab of this name.")
    ] = "",
    save: Annotated[
        Path | None, typer.Option("--save", help="Keep the whole run in FILE (a tar.gz).")
    ] = None,
    output: Output = Form.TEXT,
    color: Color = When.AUTO,
) -> None:
    """Send one marked packet, watch it with the kernel's own reports, and say what became of it."""
    from kptrace.model import Question
    from kptrace.target import parse_target

    if ipv4 and ipv6:
        raise Usage("-4 and -6 exclude each other", "give one of them, or none")
    question = Question(
        target=parse_target(target, namespace),
        source=source,
        namespace=namespace,
        via=via.value,
        node=node,
        family=4 if ipv4 else 6 if ipv6 else 0,
        count=count,
        timeout=timeout,
        expect=tuple(expect or ()),
        trace_rule=trace_rule,
    )
    _report(_traced(question, lab_name or ("default" if lab else "")), save, output, color)


@app.command(short_help="Say what a node's rules do with a Service's packets; nothing is sent.")
def explain(
    target: Annotated[
        str,
        typer.Argument(help="svc/web, svc/web:http, web.shop", show_default=False),
    ],
    source: Annotated[
        str, typer.Option("--from", help="Only for pod/NAME, node/NAME or an ADDRESS outside.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="Of the target and of --from pod/NAME.")
    ] = "default",
    node: Annotated[
        str, typer.Option("--node", help="Whose rules; default: those of --from, else the first.")
    ] = "",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="A folder or tar with the state of nodes.")
    ] = None,
    lab: Annotated[bool, typer.Option("--lab", help="In the lab named `default`.")] = False,
    lab_name: Annotated[str, typer.Option("--lab-name", help="In the lab of this name.")] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="This node; names come from its own rules.")
    ] = False,
    output: Output = Form.TEXT,
    color: Color = When.AUTO,
) -> None:
    """Say what a node's rules do with a Service's packets, rule by rule; nothing is sent.

    It exits with 1 when the rules differ from what the API tells.
    """
    import gc
    from contextlib import ExitStack

    gc.disable()  # it is soon over, and looking for cycles takes a tenth of its time

    from kptrace.target import parse_source, parse_target

    meant = parse_target(target, namespace)
    if meant.kind != "service":
        raise Usage(f'"{target}" is no Service', "explain tells of Services: svc/NAME")
    if output is Form.JUNIT:
        raise Usage("explain has no JUnit form", "use -o text, wide, json or yaml")
    sender = parse_source(source, namespace) if source else None
    name = lab_name or ("default" if lab else "")
    with ExitStack() as stack:
        state = _state(stack, bundle, name, offline)
        from kptrace.explain import look  # an agent may be at work meanwhile

        made = look(meant, sender, node, state)
    _print(_explained(made, output, color))
    faults = any(finding.severity == "error" for finding in made.findings)
    raise typer.Exit(int(faults))


@app.command(short_help="Print the report of a saved run.")
def replay(
    file: Annotated[Path, typer.Argument(help="A run that `--save FILE` kept.")],
    output: Output = Form.TEXT,
    color: Color = When.AUTO,
) -> None:
    """Print the report of a saved run; nothing is sent, no cluster is needed."""
    from kptrace import archive
    from kptrace.run import unpack

    _report(unpack(archive.read(file), file.name), None, output, color)


@app.command()
def causes(
    cause: Annotated[str, typer.Argument(help="One cause's id; without it all are listed.")] = "",
) -> None:
    """Explain the causes that a report can name."""
    from kptrace.judge.causes import CAUSES
    from kptrace.render.causes import cause_list, cause_page

    if not cause:
        _print(cause_list(CAUSES.values(), _width()))
    elif cause in CAUSES:
        _print(cause_page(CAUSES[cause], _width()))
    else:
        raise Usage(f"no cause {cause}", "`kptrace causes` lists them")


app.add_typer(lab_app, name="lab", short_help="Make, show, break and remove a small cluster.")


def _state(stack: ExitStack, bundle: Path | None, lab_name: str, offline: bool) -> State:
    """Where the state of nodes comes from."""
    if sum((bundle is not None, bool(lab_name), offline)) > 1:
        raise Usage("--bundle, --lab and --offline exclude each other", "give one of them")
    if bundle is not None:
        from kptrace.bundle import Bundle

        return Bundle(bundle)
    if lab_name:
        from kptrace.lab.ground import LabGround
        from kptrace.lab.state import load
        from kptrace.live import Live

        found = load(lab_name)
        return Live(stack.enter_context(LabGround(found)), found.nodes)
    if offline:
        from kptrace.live import Live, ThisNode

        here = stack.enter_context(ThisNode())
        live = Live(here, (here.name,))
        live.begin(here.name)
        return live
    from kptrace.errors import NoCluster

    raise NoCluster(
        "whose rules? this version reads a bundle, a lab or this node",
        "add --bundle DIR, --lab, or --offline on the node itself",
    )


def _explained(made: Explanation, output: Form, color: When) -> str:
    if output in (Form.JSON, Form.YAML):
        from kptrace.render import json

        return json.json(made) if output is Form.JSON else json.yaml(made)
    from kptrace.render.explain import explain as text

    colour = _colour(color, os.environ, sys.stdout.isatty())
    return text(made, width=_width(), colour=colour, wide=output is Form.WIDE)


def _traced(question: Question, lab_name: str) -> Run:
    from kptrace import trace as story
    from kptrace.errors import NoCluster

    if not lab_name:
        raise NoCluster(
            "which cluster? this version traces in a lab only",
            "make one with `kptrace lab up`, then add --lab",
        )
    from kptrace.lab.ground import LabGround
    from kptrace.lab.state import load

    seed = int.from_bytes(os.urandom(4))
    with LabGround(load(lab_name)) as ground:
        return story.run(question, ground, seed, _progress())


def _report(run: Run, save: Path | None, output: Form, color: When) -> NoReturn:
    from kptrace.trace import report

    if save is not None:
        from kptrace import archive
        from kptrace.run import pack

        archive.write(save, pack(run))
    made = report(run)
    _print(_rendered(made, output, color, run.question.expect))
    raise typer.Exit(_exit_code(made, run.question.expect))


def _rendered(made: Trace, output: Form, color: When, expect: tuple[Outcome, ...]) -> str:
    match output:
        case Form.JSON:
            from kptrace.render.json import json

            return json(made)
        case Form.YAML:
            from kptrace.render.json import yaml

            return yaml(made)
        case Form.JUNIT:
            from kptrace.render.junit import junit

            return junit(made, expect=expect)
        case Form.TEXT | Form.WIDE:
            from kptrace.render.text import text

            colour = _colour(color, os.environ, sys.stdout.isatty())
            return text(made, width=_width(), colour=colour, wide=output is Form.WIDE)


def _exit_code(made: Trace, expect: tuple[Outcome, ...]) -> int:
    if made.outcome in (expect or (Outcome.DELIVERED,)):
        return 0
    return 4 if made.outcome is Outcome.INCONCLUSIVE else 1


def _colour(color: When, environ: Mapping[str, str], terminal: bool) -> bool:
    """no-color.org and the field's habits: the flag, then NO_COLOR, FORCE_COLOR, the terminal."""
    if color is not When.AUTO:
        return color is When.ALWAYS
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal and environ.get("TERM", "") not in ("", "dumb")


def _width() -> int:
    """The terminal's, at most 100; 80 where there is none."""
    with suppress(OSError, ValueError):
        return max(40, min(100, os.get_terminal_size(sys.stdout.fileno()).columns))
    return 80


def _progress() -> Callable[[str], None]:
    """One line on stderr that is written over; nothing when stderr is no terminal."""
    if not sys.stderr.isatty():
        return lambda _: None

    def say(text: str) -> None:
        sys.stderr.write(f"\r\033[K{text} ...\r")
        sys.stderr.flush()

    return say


def _print(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: the exit code still tells the outcome
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _with_command(args: Sequence[str]) -> list[str]:
    """``svc/web -n shop`` means ``trace svc/web -n shop``: a first word that is no command.
    ``help lab up`` means ``lab up --help``.
    """
    if args[:1] == ["help"]:
        return [*args[1:], "--help"]
    if not args or args[0] in (*COMMANDS, "-h", "--help", "--version"):
        return list(args)
    return ["trace", *args]


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    args = sys.argv[1:]
    if args == ["--version"]:
        from kptrace import __version__

        print(f"kptrace {__version__}")
        return
    sys.exit(_run(args))


def _run(args: Sequence[str]) -> int:
    program = Path(sys.argv[0]).name
    name = "kubectl kptrace" if program.startswith("kubectl-") else "kptrace"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    try:
        result = app(_with_command(args), prog_name=name, standalone_mode=False)
        if result == INTERRUPTED:  # typer's word for a KeyboardInterrupt in a command
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except typer.TyperException as error:
        # Usage errors of typer's own click, whose classes it does not export.
        getattr(error, "show", lambda: None)()
        return int(getattr(error, "exit_code", Usage.exit_code))
    except KptraceError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted; nothing was left behind", "")
        return INTERRUPTED


def _complain(message: str, hint: str) -> None:
    from kptrace.render.clean import clean

    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    sys.stderr.write(f"kptrace: {clean(message)}\n")
    if hint:
        sys.stderr.write(f"  {clean(hint)}\n")
