#!/bin/sh
# storage-initrd.sh OUT.cpio.gz BUSYBOX MODULES
#
# Packs an initramfs with the drivers for disks, CD-ROMs and floppies out of MODULES (the folder lib/modules/VERSION/kernel
# of a Debian kernel package) and a static busybox. Its /init loads the drivers, runs the shell commands that the kernel
# command line gives as run=... (commas for spaces), prints "ALL-DONE" and powers the machine off.
set -eu
[ $# -eq 3 ] || { echo "usage: storage-initrd.sh OUT.cpio.gz BUSYBOX MODULES" >&2; exit 2; }
out=$1 busybox=$2 modules=$3
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

for folder in bin dev proc sys tmp mnt lib; do mkdir "$root/$folder"; done
cp "$busybox" "$root/bin/busybox"
chmod 755 "$root/bin/busybox"
# In the order in which they need each other; what a kernel has built in is not there.
for module in crc16 crc64 crct10dif_common crct10dif_generic crc-t10dif crc64_rocksoft_generic crc64-rocksoft t10-pi \
    crc32c_generic libcrc32c scsi_common scsi_mod libata libahci ahci ata_piix ata_generic sd_mod cdrom sr_mod floppy mbcache jbd2 ext4 \
    isofs fat vfat nls_cp437 nls_ascii; do
    found=$(find "$modules" -name "$module.ko" | head -n 1)
    if [ -n "$found" ]; then
        cp "$found" "$root/lib/"
        echo "$module.ko" >> "$root/lib/order"
    fi
done

cat > "$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
PATH=/bin
export PATH
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
exec < /dev/console > /dev/console 2>&1
while read -r module; do
    case $(cat /proc/cmdline) in *"no-${module%.ko}"*) continue ;; esac
    insmod "/lib/$module" 2> /dev/null
done < /lib/order
# Drives are found by threads of their own.
tries=0
for word in $(cat /proc/cmdline); do case $word in wait=*) awaited=${word#wait=} ;; esac; done
while [ -n "${awaited:-}" ] && [ ! -b "/dev/$awaited" ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
echo "BOOT-OK $(cut -d ' ' -f 1 /proc/uptime)"
for word in $(cat /proc/cmdline); do
    case $word in
        run=*) eval "$(echo "${word#run=}" | sed 's/,/ /g')" ;;
    esac
done
echo ALL-DONE
poweroff -f
INIT
chmod 755 "$root/init"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n > "$out.part"
mv "$out.part" "$out"
