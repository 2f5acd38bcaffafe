#!/bin/sh
# Make the virtual environment $1 with kptrace and what a lab needs, and with all that its tests need
# if $2 is "tests"; repeatable. pip installs the locked versions and nothing else. Only where $2 is
# "newest" it takes the newest that the ranges allow, for the tests, in a new environment.
# On Debian as root it installs the missing packages; elsewhere it names them.
set -eu
venv=$1
python=${PYTHON:-python3}

missing=
need() { # need COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
PATH=$PATH:/usr/sbin:/sbin
need ip iproute2
need iptables-nft-save iptables
need nft nftables
need "$python" python3
locks="-r plugins/kubectl/build/requirements/runtime.txt -r plugins/kubectl/build/requirements/backend.txt"
if [ -n "${2:-}" ]; then
	locks="-r tests/requirements/dev.txt"
	need ipset ipset
	need ipvsadm ipvsadm
	need conntrack conntrack # some faults change an entry by hand
	need modprobe kmod
	need linux.uml user-mode-linux
	need zsh zsh # completion is tried in each shell
	need fish fish
	need buildah buildah # the Containerfile is built, on a base that is made here
	need debootstrap debootstrap
fi
"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
if [ -n "$missing" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "installing:$missing" >&2
		apt-get update -qq >&2
		# shellcheck disable=SC2086 # a list of words
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
	else
		echo "missing packages:$missing (install them, or run as root on Debian)" >&2
	fi
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
	echo "$python is older than 3.11: set PYTHON=/path/to/python3.11" >&2
	exit 1
}
pip_install() {
	"$venv/bin/python" -m pip install -q --disable-pip-version-check "$@"
}
if [ "${2:-}" = newest ]; then
	"$python" -m venv --clear "$venv"
	pip_install -e . -r tests/requirements/dev.in
	exit
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# Wheels alone, and kptrace by the backend that is locked: building would fetch what is not.
# shellcheck disable=SC2086 # a list of words
pip_install --require-hashes --only-binary=:all: $locks
pip_install --no-deps --no-build-isolation -e .
