#!/bin/sh
# Process 1 of the guest. Its root is the host's / by hostfs, read-only; it lays a tmpfs over it, moves in, and hands
# over to guest.sh in the job's directory. $umljob is that directory's path on the host: what the kernel's command
# line says as name=value, and the kernel does not know, is put into the environment of process 1.
# Few processes on purpose: starting one costs 20 ms here.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

give_up() {
  echo "init.sh: cannot $1"
  echo o >/proc/sysrq-trigger && sleep 10
  exit 1
}

mount -t proc proc /proc
read -r _ _ release _ </proc/version
modules=/usr/lib/uml/modules/$release
overlay=$modules/kernel/fs/overlayfs/overlay.ko
[ ! -f "$overlay" ] || insmod "$overlay"
mount -t tmpfs -o mode=755,size=75% tmpfs /run
mkdir -p /run/upper /run/work /run/root
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay /run/root || give_up "mount the overlay"

root=/run/root
mkdir -p $root/lib/modules $root/dev $root/proc $root/sys $root/tmp $root/run
# Debian's UML keeps its modules elsewhere; with this link modprobe and the kernel's own loading find them.
[ ! -d "$modules" ] || ln -sfn "$modules" "$root/lib/modules/$release"
cat >/run/fstab <<TABLE
proc $root/proc proc defaults 0 0
sysfs $root/sys sysfs defaults 0 0
dev $root/dev devtmpfs defaults 0 0
tmpfs $root/run tmpfs mode=755 0 0
tmpfs $root/tmp tmpfs mode=1777 0 0
TABLE
mount -a -T /run/fstab || give_up "mount the system's directories"
mkdir -p $root/dev/pts $root/dev/shm $root/dev/net $root/run/netns $root/run/lock $root/run/uml/job $root/run/uml/old \
  $root/sys/fs/cgroup
ln -s /proc/self/fd $root/dev/fd
ln -s fd/0 $root/dev/stdin
ln -s fd/1 $root/dev/stdout
ln -s fd/2 $root/dev/stderr
[ -e $root/dev/net/tun ] || mknod $root/dev/net/tun c 10 200
: "${umljob:?}"
cat >/run/fstab <<TABLE
devpts $root/dev/pts devpts ptmxmode=666,gid=5 0 0
tmpfs $root/dev/shm tmpfs mode=1777 0 0
cgroup2 $root/sys/fs/cgroup cgroup2 defaults 0 0
hostfs $root/run/uml/job hostfs $umljob 0 0
TABLE
mount -a -T /run/fstab || give_up "mount the job's directory"
# pivot_root, so that mount namespaces and `ip netns exec` work as on any machine; switch_root would delete the files
# of the old root, which are the host's.
cd $root || give_up "enter the new root"
pivot_root . run/uml/old || give_up "change the root"
cd /
exec /bin/sh /run/uml/job/guest.sh
