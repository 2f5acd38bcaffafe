#!/bin/sh
# Make the virtual environment $1 with kptrace and what a lab needs, and with all that its tests need
# if $2 is "tests"; repeatable.
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
wanted="-e ."
if [ "${2:-}" = tests ]; then
	wanted="$wanted -r tests/requirements.txt"
	need ipset ipset
	need ipvsadm ipvsadm
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
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# shellcheck disable=SC2086 # a list of words
"$venv/bin/python" -m pip install -q --disable-pip-version-check $wanted
