#!/bin/sh
# debian-disk.sh UMBRA FOLDER [OPTION...]: Debian on a disk of its own, started by our own BIOS through GRUB, in both engines;
# raw and qcow2 images on IDE and on AHCI. Each time: boot to the login on the serial port, log in, write a file, sync; Umbra is
# killed with SIGKILL; boot again, the file is there, power off. OPTIONs go to every run (--bios FILE for another firmware).
#
#   UMBRA_CASES="ENGINE:INTERFACE:FORMAT..."   only these, such as jit:ide:raw interp:ahci:qcow2
#
# The image is made once, by debootstrap (about 4 minutes), and kept as FOLDER/debian.img; only that needs root. Needs debootstrap,
# e2fsprogs, fdisk and qemu-utils, and 3 GB of room.
set -eu
[ $# -ge 2 ] || { echo "usage: debian-disk.sh UMBRA FOLDER [OPTION...]" >&2; exit 2; }
umbra=$1 folder=$2
shift 2
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
image=$folder/debian.img
log=$folder/debian.log

fail() {
    tail -n 25 "$log" >&2
    echo "debian-disk.sh: $*" >&2
    exit 1
}

# A minimal Debian in a folder: a root user without a password, a getty where the kernel's console is.
root_folder() {
    rm -rf "$root"
    debootstrap --variant=minbase --include=linux-image-amd64,grub-pc-bin,grub-common,initramfs-tools,zstd,systemd-sysv,udev \
        bookworm "$root"
    chroot "$root" passwd -d root
    echo debian > "$root/etc/hostname"
    echo 'LABEL=debian / ext4 errors=remount-ro 0 1' > "$root/etc/fstab"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    mkdir -p "$root/boot/grub"
    cp -r "$root/usr/lib/grub/i386-pc" "$root/boot/grub/"
    cat > "$root/boot/grub/grub.cfg" <<'CFG'
set timeout=1
menuentry Debian {
    linux /vmlinuz root=LABEL=debian ro quiet console=tty0 console=ttyS0
    initrd /initrd.img
}
CFG
    chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2
}

# A disk of 1600 MiB: GRUB behind the boot sector, one ext4 partition with what is in the folder.
disk() {
    [ "$(id -u)" -eq 0 ] || { echo "debian-disk.sh: making $image needs root, for debootstrap" >&2; exit 1; }
    root=$folder/debian-root
    root_folder > "$log" 2>&1 || fail "debootstrap"
    rm -f "$image.tmp"
    truncate -s 1600M "$image.tmp"
    printf 'label: dos\n2048,,L,*\n' | /sbin/sfdisk -q "$image.tmp"
    /sbin/mke2fs -q -t ext4 -L debian -d "$root" -E offset=1048576 "$image.tmp" 1599M
    dd if="$root/boot/grub/i386-pc/boot.img" of="$image.tmp" bs=440 count=1 conv=notrunc status=none
    dd if="$root/boot/grub/i386-pc/core.img" of="$image.tmp" bs=512 seek=1 conv=notrunc status=none
    rm -rf "$root"
    mv "$image.tmp" "$image"
}

# What a person does at the login: waits, logs in, types a command.
at_login() { # COMMAND OPTIONS...
    typed=$1
    shift
    exec "$umbra" run "$@" -m 512M --headless --timeout 600s \
        --wait-text 'debian login: ' --type 'root\n' --wait-text ':~# ' --type "$typed\n" > "$log" 2>&1 < /dev/null
}

# A file is written and synced, then Umbra is killed; it must be there at the next start.
kept_over_a_kill() { # NAME DISK OPTIONS...
    name=$1 disk=$2
    shift 2
    token=token-$$-$(date +%N)
    began=$(date +%s)
    at_login "echo $token > kept; sync; echo synced-\$((40 + 2))" --disk "$disk" "$@" &
    machine=$!
    while ! grep -q 'synced-42' "$log"; do
        kill -0 $machine 2> /dev/null || fail "$name: Umbra ended before the guest had synced"
        sleep 0.1
    done
    kill -9 $machine
    status=0
    wait $machine 2> /dev/null || status=$?
    [ $status -eq 137 ] || fail "$name: Umbra ended by itself with $status"
    first=$(($(date +%s) - began))
    case $disk in
        *.qcow2*)
            status=0
            qemu-img check -q "${disk%%,*}" > "$log" 2>&1 || status=$?
            # 3: clusters that the killed process had taken and not used; nothing is lost.
            [ $status -eq 0 ] || [ $status -eq 3 ] || fail "$name: qemu-img check gives $status"
            ;;
    esac
    (at_login "cat kept; poweroff" --disk "$disk" "$@") || fail "$name: no second boot to a power-off"
    grep -q "$token" "$log" || fail "$name: the file that was synced is not there"
    echo "$name: good, ${first} s to the kill"
}

[ -e "$image" ] || disk
work=$folder/debian-run
mkdir -p "$work"
all="jit:ide:raw jit:ide:qcow2 jit:ahci:raw jit:ahci:qcow2 interp:ide:raw interp:ide:qcow2 interp:ahci:raw interp:ahci:qcow2"
for case in ${UMBRA_CASES:-$all}; do
    engine=${case%%:*} format=${case##*:}
    interface=${case#*:}
    interface=${interface%:*}
    rm -f "$work"/disk.*
    if [ "$format" = raw ]; then
        cp --sparse=always "$image" "$work/disk.raw"
    else
        qemu-img convert -f raw -O qcow2 "$image" "$work/disk.qcow2"
    fi
    : > "$log"
    kept_over_a_kill "$format on $interface, $engine" "$work/disk.$format,if=$interface" --engine "$engine" "$@"
done
rm -f "$work"/disk.*
echo "debian-disk.sh: all good"
