"""kptrace: follow one packet from a pod to a Service, proved by the kernel."""

__version__ = "0.1.0"
