"""kube-proxy 1.36 for the lab: Services and endpoints in, the rules that it would write out.

``iptables.render`` and ``nftables.render`` give text, ``load`` says which commands take it; nothing
here runs anything. Both write what ``service_port.proxied_ports`` decides; tests compare every
chain, map and set with what real kube-proxies wrote.
"""
