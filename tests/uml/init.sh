#!/bin/bash
# The first process inside User Mode Linux: make a Linux of the host's files, run pytest, say how it
# ended. The host's files are a read-only lower layer; all that is written stays in the guest's
# memory, but for $OUT. Words from the kernel's command line: out=DIRECTORY modules=DIRECTORY.
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin HOME=/root
mount -t proc proc /proc
for word in $(cat /proc/cmdline); do
	case $word in
	out=*) out=${word#out=} ;;
	modules=*) modules=${word#modules=} ;;
	esac
done
insmod "$modules/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs tmpfs /tmp
mkdir /tmp/upper /tmp/work /tmp/root
mount -t overlay -o lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work none /tmp/root
cd /tmp/root || exit 1
echo second-kernel >/proc/sys/kernel/hostname
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mkdir -p dev/shm mnt lib/modules
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs tmpfs run
mount -t hostfs -o "$out" none mnt
ln -sfn "$modules" "lib/modules/$(uname -r)"
exec chroot . /bin/bash /mnt/run.sh
