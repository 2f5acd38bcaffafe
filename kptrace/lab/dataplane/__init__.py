"""Pure writers of the rules that proxies and CNI plugins leave on a node."""
