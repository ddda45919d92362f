#!/bin/sh
# mkinitramfs.sh OUT.cpio.gz BUSYBOX [FILE...]
#
# Packs the smallest Linux user space that proves a boot: a static busybox, FILEs under /opt, and an /init that prints
# "BOOT-OK <uptime>", runs the shell commands that the kernel command line gives as run=... (commas for spaces; run=sh
# is a shell on the console), prints "ALL-DONE" and powers the machine off.
set -eu
[ $# -ge 2 ] || { echo "usage: mkinitramfs.sh OUT.cpio.gz BUSYBOX [FILE...]" >&2; exit 2; }
out=$1
busybox=$2
shift 2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

for folder in bin dev proc sys tmp opt; do mkdir "$root/$folder"; done
cp "$busybox" "$root/bin/busybox"
chmod 755 "$root/bin/busybox"
for applet in sh cat cp date dd dmesg echo free grep head ls md5sum mkdir mount poweroff ps rm sed sleep tail uname; do
    ln -s busybox "$root/bin/$applet"
done
for file in "$@"; do cp "$file" "$root/opt/"; done

cat > "$root/init" <<'INIT'
#!/bin/sh
PATH=/bin:/opt
export PATH
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
exec < /dev/console > /dev/console 2>&1
read -r uptime idle < /proc/uptime
echo "BOOT-OK $uptime"
for word in $(cat /proc/cmdline); do
    case $word in
        run=*) eval "$(echo "${word#run=}" | sed 's/,/ /g')" ;;
    esac
done
echo ALL-DONE
poweroff -f
INIT
chmod 755 "$root/init"

# Sorted names, no owner, no time: the same input gives the same image.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n > "$out.part"
mv "$out.part" "$out"
