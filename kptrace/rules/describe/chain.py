"""What a jump to a chain means, by the names that proxies, CNI plugins and Docker use.

Sources: kube-proxy's proxier.go of each mode, Flannel's trafficmngr, Felix's rule_defs.go, the
portmap and firewall of containernetworking.
"""

CHAINS = {
    "KUBE-SERVICES": "to the Services",
    "KUBE-NODEPORTS": "to the NodePorts",
    "KUBE-NODE-PORT": "to the NodePorts",
    "KUBE-EXTERNAL-SERVICES": "to external addresses without endpoints",
    "KUBE-POSTROUTING": "to kube-proxy's masquerading",
    "KUBE-FORWARD": "to kube-proxy's forwarding rules",
    "KUBE-FIREWALL": "to the kubelet's firewall",
    "KUBE-PROXY-FIREWALL": "to load balancers' source ranges",
    "KUBE-SOURCE-RANGES-FIREWALL": "to load balancers' source ranges",
    "KUBE-LOAD-BALANCER": "to the load balancers",
    "KUBE-IPVS-FILTER": "to the guard of the Services' addresses",
    "FLANNEL-FWD": "to Flannel's forwarding rules",
    "FLANNEL-POSTRTG": "to Flannel's masquerading",
    "CNI-HOSTPORT-DNAT": "to the host ports",
    "CNI-HOSTPORT-MASQ": "to the host ports' masquerading",
    "CNI-FORWARD": "to the CNI's forwarding rules",
    "DOCKER": "to Docker's rules",
    "DOCKER-USER": "to the administrator's rules for Docker",
    "services": "to the Services",
    "masquerading": "to kube-proxy's masquerading",
    "service-endpoints-check": "to Services without endpoints",
    "endpoints-check": "to Services without endpoints",
    "nodeport-endpoints-check": "to NodePorts without endpoints",
    "cluster-ips-check": "to ports that no Service has",
    "firewall-check": "to load balancers' source ranges",
    "reject-chain": "to be rejected",
    "cali-from-wl-dispatch": "to the sending pod's policy",
    "cali-to-wl-dispatch": "to the receiving pod's policy",
    "ISTIO_OUTPUT": "to the mesh's rules for what the pod sends",
    "ISTIO_INBOUND": "to the mesh's rules for what comes for the pod",
    "ISTIO_REDIRECT": "to the sidecar",
    "ISTIO_IN_REDIRECT": "to the sidecar, as inbound",
    "PROXY_INIT_OUTPUT": "to the mesh's rules for what the pod sends",
    "PROXY_INIT_REDIRECT": "to the sidecar",
    "cali-wl-to-host": "to the rules from pods to this node",
}
CALICO = {
    "cali-fw-": "to egress policy of the pod at ",
    "cali-tw-": "to ingress policy of the pod at ",
    "cali-po-": "to egress policy ",
    "cali-pi-": "to ingress policy ",
    "cali-pro-": "to egress profile ",
    "cali-pri-": "to ingress profile ",
}
MAPS = {
    "service-ips": "finds the Service by address and port",
    "service-nodeports": "finds the Service by NodePort",
    "no-endpoint-services": "asks whether the Service has no endpoints",
    "no-endpoint-nodeports": "asks whether the NodePort's Service has no endpoints",
    "firewall-ips": "asks whether a load balancer limits its sources",
}
