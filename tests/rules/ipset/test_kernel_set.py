"""Sets as netlink gives them, as ``ipset save`` prints them."""

from __future__ import annotations

import pytest

from kptrace.rules.ipset.kernel_set import save_text


def test_a_hash_of_addresses_and_ports() -> None:
    tree = {
        "name": "KUBE-CLUSTER-IP",
        "type": "hash:ip,port",
        "family": 2,
        "options": {"hashsize": "400", "maxelem": "10000"},
        "elements": [
            {"ip": "0a600001", "port": "01bb", "proto": "06"},
            {"ip": "0a60000a", "port": "35", "proto": "11", "comment": "646e7300"},
        ],
    }
    assert save_text(tree) == (
        "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536\n"
        "add KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n"
        'add KUBE-CLUSTER-IP 10.96.0.10,udp:53 comment "dns"\n'
    )


def test_networks_with_an_exception_and_a_timeout() -> None:
    tree = {
        "name": "nets",
        "type": "hash:net",
        "family": 10,
        "options": {"timeout": "3c"},
        "elements": [
            {"ip": "fd" + "00" * 15, "cidr": "08"},
            {"ip": "fd" + "00" * 14 + "01", "cidr": "80", "cadt_flags": "04", "timeout": "0a"},
        ],
    }
    assert save_text(tree) == (
        "create nets hash:net family inet6 timeout 60\n"
        "add nets fd00::/8\n"
        "add nets fd00::1 timeout 10 nomatch\n"
    )


def test_a_bitmap_of_ports_and_a_list() -> None:
    ports = {
        "name": "ports",
        "type": "bitmap:port",
        "family": 0,
        "options": {"port": "00", "port_to": "ffff"},
        "elements": [{"port": "50"}, {"port": "1f90", "port_to": "1f9a"}],
    }
    assert save_text(ports) == (
        "create ports bitmap:port range 0-65535\nadd ports 80\nadd ports 8080-8090\n"
    )
    sets = {"name": "l", "type": "list:set", "family": 0, "elements": [{"name": "706f72747300"}]}
    assert save_text(sets) == "create l list:set\nadd l ports\n"


def test_a_set_without_a_key_is_refused() -> None:
    tree = {"name": "x", "type": "hash:ip", "family": 2, "elements": [{}]}
    with pytest.raises(KeyError):
        save_text(tree)
