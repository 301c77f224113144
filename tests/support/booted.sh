# Boots this host's systemd as PID 1 of the namespaces that this script was started in, over a copy-on-write
# view of /. For booted.py, which says what is passed.
set -eu
layers=$1 share=$2 name=$3 layer=$4 # and assignments for the environment of PID 1

# In a cgroup of its own first, for the new cgroup namespace to begin there.
if [ -z "${ROOTED:-}" ]; then
    echo $$ >"$layers/cgroup/$name/cgroup.procs"
    ROOTED=1 exec unshare --cgroup bash "$0" "$@"
fi

shift 4

root=$layers/root
if [ ! -e "$root" ]; then
    mkdir "$layers/upper" "$layers/work" "$root"
    [ -z "$layer" ] || cp -a "$layer/." "$layers/upper/"
fi
mount -t overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" overlay "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
# The kernel is everybody's: its settings are for reading alone, and nothing in there may load or mount.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mkdir "$root/run/share"
mount --bind "$share" "$root/run/share"

units=$root/etc/systemd/system
if [ ! -e "$units/booted.target" ]; then
    # The first boot: none of the host's own services and logs.
    find "$units" -mindepth 1 -maxdepth 1 -name '*.wants' -exec rm -rf {} +
    find "$root/var/log" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
    for unit in systemd-update-utmp.service systemd-timesyncd.service systemd-logind.service \
        systemd-firstboot.service systemd-networkd-wait-online.service e2scrub_reap.service \
        systemd-tmpfiles-setup.service systemd-tmpfiles-clean.timer systemd-sysusers.service ldconfig.service \
        systemd-journal-catalog-update.service systemd-update-done.service dev-hugepages.mount \
        dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
        sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount systemd-remount-fs.service \
        systemd-binfmt.service getty.target console-getty.service; do
        ln -sf /dev/null "$units/$unit"
    done
    printf '%s\n' '[Unit]' Requires=basic.target 'Wants=sockets.target multi-user.target' \
        'After=basic.target sockets.target multi-user.target' AllowIsolate=yes >"$units/booted.target"
    mkdir -p "$root/etc/systemd/journald.conf.d"
    printf '%s\n' '[Journal]' Storage=volatile ForwardToSyslog=no \
        >"$root/etc/systemd/journald.conf.d/booted.conf"
    rm -f "$root/etc/fstab"
    touch "$root/etc/fstab"
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    echo "$name" >"$root/etc/hostname"
fi
# A container shares its host's boot id: every service gets another.
mkdir -p "$root/run/systemd/system.conf.d"
printf '[Manager]\nDefaultEnvironment=PKI2FAD_BOOT_ID=%s\n' "$(cat /proc/sys/kernel/random/uuid)" \
    >"$root/run/systemd/system.conf.d/boot-id.conf"

mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
umount -l /.old
rmdir /.old
mount --make-rshared / # systemd leaves that to whoever starts it in a container; credentials are mounts
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test \
    NOTIFY_SOCKET=/run/share/notify "$@" \
    /usr/lib/systemd/systemd --system --unit=booted.target --log-target=journal --show-status=no
