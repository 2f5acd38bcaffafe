"""An API server over HTTP for what talks to one."""

from support.cluster_server import api, client

__all__ = ["api", "client"]
