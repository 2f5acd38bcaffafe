"""The commands, one file each: what the command line asks for, handed to the rooms that do it.

A command is a function that carries its name, in a module that carries its name; its docstring is
its page of help, the table below its line in the list. A module that nobody asked for is not even
imported. A group of commands is a module with a typer app.

To add one: write ``kptrace/cli/NAME.py`` with a function NAME, and a line here.
"""

from __future__ import annotations

SHORT = {
    "trace": "Trace one packet to a Service, a pod, a name or an address.",
    "explain": "Say what a node's rules do with a Service's packets.",
    "resolve": "Say what a name means: to the API, and to the pod's own DNS.",
    "check": "Say what on the nodes would break Service traffic.",
    "snapshot": "Keep the state of the nodes, to be explained elsewhere.",
    "verify": "Try a file of expected results; for CI.",
    "replay": "Print the report of a saved run.",
    "clean": "Remove what killed runs left in the cluster.",
    "causes": "Explain the causes that a report can name.",
    "lab": "Make, show, break and remove a small cluster.",
}
EXAMPLES = {
    "svc/web -n shop --from pod/client": "trace a packet to it",
    "explain svc/web -n shop": "its rules in plain words",
    "check": "what would break traffic?",
    "verify FILE": "expected results, for CI",
    "lab up": "a small cluster to try on",
}
GROUPS = {"lab": "kptrace.cli.lab"}
