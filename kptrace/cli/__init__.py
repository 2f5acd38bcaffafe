"""The commands, one file each: what the command line asks for, handed to the packages that do it.

A command is a function that carries its name, in a module that carries its name; its docstring is
its page of help, the table below its line in the list. A module that nobody asked for is not even
imported. A group of commands is a module with a typer app.

To add one: write ``kptrace/cli/NAME.py`` with a function NAME, and a line here.
"""

from __future__ import annotations

SHORT = {
    "trace": "Trace one packet to a Service, a pod, a name or an address.",
    "explain": "Explain a node's rules for a Service in plain words.",
    "resolve": "Resolve a target through the API and through the pod's DNS.",
    "check": "Check the nodes for problems that would break Service traffic.",
    "snapshot": "Save the state of the nodes in one bundle for offline analysis.",
    "verify": "Run the checks in a YAML file (for CI).",
    "replay": "Print the report of a saved run.",
    "clean": "Delete agent pods that killed runs left in the cluster.",
    "causes": "List or explain the causes that a report can name.",
    "lab": "Manage a small test cluster of network namespaces.",
}
EXAMPLES = {
    "svc/web -n shop --from pod/client": "trace a packet to it",
    "explain svc/web -n shop": "its rules in plain words",
    "check": "what would break traffic?",
    "verify FILE": "expected results, for CI",
    "lab up": "a small cluster to try on",
}
GROUPS = {"lab": "kptrace.cli.lab"}
