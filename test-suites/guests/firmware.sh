#!/bin/sh
# firmware.sh UMBRA FOLDER [OPTION...]: systems that our own BIOS starts from CD, floppy and disk, all built here from Debian's
# packages, in both engines; each screen (or serial port) must come to show a text. OPTIONs go to every run (--bios FILE for a
# comparison). Needs grub-pc-bin, grub-common, xorriso, mtools, isolinux, syslinux-common, fdisk; memtest86+ and ipxe for theirs;
# and a kernel and initrd that fetch.sh has put into FOLDER (cloud).
set -eu
umbra=$1 folder=$2
shift 2
# The menu, and kernels that firmware loads, are our own BIOS's.
case " $* " in
    *" --bios "*) own=no ;;
    *) own=yes ;;
esac
work=$folder/firmware
mkdir -p "$work"
modules=/usr/lib/grub/i386-pc
log=$work/log.txt

cd_grub() { [ -e "$work/grub.iso" ] || grub-mkrescue -o "$work/grub.iso" > "$log" 2>&1; }

# A floppy of 1440 KiB: boot sector with its FAT, GRUB in reserved sectors, a file.
floppy() {
    [ ! -e "$work/floppy.img" ] || return 0
    grub-mkimage -O i386-pc -o "$work/core.img" -p '(fd0)/boot/grub' biosdisk fat ls normal echo cat halt
    sectors=$(( ($(stat -c %s "$work/core.img") + 511) / 512 + 2 ))
    rm -f "$work/floppy.tmp"
    truncate -s 1440K "$work/floppy.tmp"
    mformat -i "$work/floppy.tmp" -f 1440 -R $sectors ::
    echo from-the-floppy > "$work/hello.txt"
    mcopy -i "$work/floppy.tmp" "$work/hello.txt" ::/hello.txt
    dd if=$modules/boot.img of="$work/floppy.tmp" bs=1 count=3 conv=notrunc status=none
    dd if=$modules/boot.img of="$work/floppy.tmp" bs=1 skip=90 seek=90 count=422 conv=notrunc status=none
    dd if="$work/core.img" of="$work/floppy.tmp" bs=512 seek=1 conv=notrunc status=none
    mv "$work/floppy.tmp" "$work/floppy.img"
}

# A disk of 64 MiB: GRUB behind the boot sector, a FAT partition with a file and an environment that GRUB can write.
disk() {
    [ ! -e "$work/disk.img" ] || [ "$work/disk.img" -ot "$0" ] || return 0
    grub-mkimage -O i386-pc -o "$work/core.img" -p '(hd0,msdos1)/boot/grub' \
        biosdisk part_msdos fat ls normal echo cat loadenv reboot halt
    rm -f "$work/disk.tmp"
    truncate -s 64M "$work/disk.tmp"
    printf 'label: dos\n2048,,c,*\n' | /sbin/sfdisk -q "$work/disk.tmp"
    dd if=$modules/boot.img of="$work/disk.tmp" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$work/disk.tmp" bs=512 seek=1 conv=notrunc status=none
    mformat -i "$work/disk.tmp@@1M" -F ::
    echo from-the-disk > "$work/hello.txt"
    mcopy -i "$work/disk.tmp@@1M" "$work/hello.txt" ::/hello.txt
    rm -f "$work/env"
    grub-editenv "$work/env" create
    mcopy -i "$work/disk.tmp@@1M" "$work/env" ::/env
    mv "$work/disk.tmp" "$work/disk.img"
}

# CDs that play a floppy and a hard disk (El Torito's emulations), and one of isolinux with Debian's kernel.
cd_emulated() {
    [ ! -e "$work/$1.iso" ] || return 0
    rm -rf "$work/cd"
    mkdir "$work/cd"
    cp "$work/$2" "$work/cd/boot.img"
    xorriso -as mkisofs -quiet -o "$work/$1.iso" -b boot.img -c boot.cat $3 "$work/cd" > "$log" 2>&1
}
cd_isolinux() {
    [ ! -e "$work/isolinux.iso" ] || return 0
    rm -rf "$work/cd"
    mkdir -p "$work/cd/isolinux"
    cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/cd/isolinux/"
    cp "$folder/vmlinuz-cloud" "$work/cd/vmlinuz"
    cp "$folder/initrd-64.cpio.gz" "$work/cd/initrd.gz"
    printf 'default l\nprompt 0\nlabel l\nkernel /vmlinuz\nappend initrd=/initrd.gz console=ttyS0 quiet panic=-1\n' \
        > "$work/cd/isolinux/isolinux.cfg"
    xorriso -as mkisofs -quiet -o "$work/isolinux.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
        -boot-load-size 4 -boot-info-table "$work/cd" > "$log" 2>&1
}

# serial NAME TEXT OPTIONS...: a regular expression must match what the guest says on its serial port.
serial() {
    name=$1 text=$2
    shift 2
    if ! "$umbra" run "$@" --headless --until "$text" > "$log" 2>&1 < /dev/null; then
        cat "$log"
        echo "firmware.sh: $name: FAILED"
        exit 1
    fi
    echo "$name: good"
}

# run NAME OPTIONS...: a script at the screen must come to its end.
run() {
    name=$1
    shift
    status=0
    "$umbra" run "$@" --headless --serial none --screen-text --type-at screen > "$log" 2>&1 < /dev/null || status=$?
    if [ $status -ne 0 ] || grep -q 'never showed' "$log"; then
        cat "$log"
        echo "firmware.sh: $name: FAILED (status $status)"
        exit 1
    fi
    echo "$name: good"
}

cd_grub
floppy
disk
cd_emulated cd-floppy floppy.img ""
cd_emulated cd-disk disk.img -hard-disk-boot
cd_isolinux
for engine in interp jit; do
    common="--engine $engine --timeout 300s"
    # shellcheck disable=SC2086
    {
        run "GRUB from a CD, $engine" "$work/grub.iso" --disk "$work/disk.img,snapshot" $common "$@" \
            --wait-text 'grub>' --type 'ls\r' --wait-text '(hd0,msdos1) (cd) (cd,msdos1) (fd0)\ngrub>' \
            --type 'cat (hd0,1)/hello.txt\r' --wait-text 'from-the-disk'
        run "GRUB from a floppy, $engine" "$work/floppy.img" $common "$@" \
            --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-floppy'
        run "Caps Lock, editing keys, Ctrl-Alt-Del, $engine" "$work/floppy.img" $common "$@" \
            --wait-text 'grub>' --type '\{capslock}echo aBc\{capslock}\r' --wait-text 'AbC' \
            --type 'echo one\{backspace}\{left}X\r' --wait-text 'oXn' \
            --type '\{ctrl+alt+delete}' --wait-text 'BIOS' --wait-text 'grub>'
        run "GRUB from a disk, and again after a reset, $engine" "$work/disk.img" $common "$@" \
            --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-disk\n\ngrub>' --type 'reboot\r' \
            --wait-text 'BIOS' --wait-text 'grub>'
        cp "$work/disk.img" "$work/ahci.img"
        run "GRUB from an AHCI disk, which it writes, $engine" --disk "$work/ahci.img,if=ahci" $common "$@" \
            --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-disk\n\ngrub>' \
            --type 'set kept=on-ahci\r' --wait-text 'kept=on-ahci\ngrub>' --type 'save_env -f (hd0,1)/env kept\r' \
            --wait-text '/env kept\ngrub>' --type 'reboot\r' --wait-text 'BIOS' --wait-text 'grub>' \
            --type 'load_env -f (hd0,1)/env\r' --wait-text '(hd0,1)/env\ngrub>' --type 'echo $kept\r' --wait-text '\non-ahci\n'
        mcopy -i "$work/ahci.img@@1M" ::/env - | grep -q '^kept=on-ahci$' || { echo "firmware.sh: nothing was written"; exit 1; }
        run "GRUB from a CD that plays a floppy, $engine" "$work/cd-floppy.iso" $common "$@" \
            --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-floppy'
        run "GRUB from a CD that plays a disk, $engine" "$work/cd-disk.iso" $common "$@" \
            --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-disk'
        # The bit fade test waits for minutes, after all the others: a screen that no host is too fast to see.
        run "memtest86+ from a CD, $engine" /usr/lib/memtest86+/memtest86+ia32.iso -m 16M $common "$@" \
            --wait-text 'Testing: ' --wait-text '[Bit fade' --wait-text 'Errors: 0'
        serial "Debian's kernel by isolinux, $engine" BOOT-OK "$work/isolinux.iso" --cpus 2 $common "$@"
        [ $own = yes ] || continue
        run "the boot menu, $engine" --disk "$work/disk.img,snapshot" --cdrom "$work/grub.iso" $common "$@" \
            --wait-text 'boot menu' --type '\{f12}' --wait-text '2. disk' --type '2' \
            --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-disk'
        run "an order that was asked for, $engine" --disk "$work/disk.img,snapshot" --cdrom "$work/grub.iso" --boot disk \
            $common "$@" --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-disk'
        run "a menu that was asked for, $engine" --disk "$work/disk.img,snapshot,if=ahci" --cdrom "$work/grub.iso" \
            --boot menu,disk $common "$@" --wait-text '1. disk' --wait-text '2. CD' --type '1' \
            --wait-text 'grub>' --type 'cat /hello.txt\r' --wait-text 'from-the-disk'
        run "the boot menu with AHCI disks, $engine" --disk "$work/disk.img,snapshot" --disk "$work/floppy.img,snapshot,if=ahci" \
            --disk "$work/disk.img,snapshot,if=ahci" $common "$@" \
            --wait-text 'boot menu' --type '\{f12}' --wait-text '3. disk' --type '3' --wait-text 'grub>' --type 'ls\r' \
            --wait-text '(hd0) (hd0,msdos1) (hd1) (hd2) (hd2,msdos1)'
        run "iPXE, $engine" /boot/ipxe.lkrn $common "$@" --wait-text 'Open Source Network Boot Firmware'
    }
done
echo "firmware.sh: all good"
