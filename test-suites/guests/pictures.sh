#!/bin/sh
# pictures.sh UMBRA FOLDER [NAME...]: makes the pictures in docs/ beside this script, which the README shows: what a person sees of
# each guest, at a moment that a text names (the installer's first dialog: after two minutes); and a trace of a boot. FOLDER is what
# firmware.sh (CDs, floppies, disks) and installer.sh (Debian's installer) made; kernels are fetched. Needs ovmf, memtest86+ and
# ipxe; for the panel Xvfb, xdotool and ImageMagick.
set -eu
[ $# -ge 2 ] || { echo "usage: pictures.sh UMBRA FOLDER [NAME...]" >&2; exit 2; }
umbra=$1 folder=$2
shift 2
wanted=" $* "
docs=$(cd "$(dirname "$0")" && pwd)/docs
mkdir -p "$docs"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# picture NAME STATUS OPTIONS...: the screen at the end of a run that ends with STATUS.
picture() {
    name=$1 expected=$2
    shift 2
    case $wanted in *" $name "* | "  ") ;; *) return 0 ;; esac
    status=0
    "$umbra" run "$@" --headless --screenshot "$docs/$name.png" > "$log" 2>&1 < /dev/null || status=$?
    if [ $status -ne "$expected" ] || grep -q 'never showed' "$log"; then
        cat "$log"
        echo "pictures.sh: $name: FAILED (status $status)"
        exit 1
    fi
    echo "$name: $(wc -c < "$docs/$name.png") bytes"
}

firmware=$folder/firmware
screen='--serial none --type-at screen --timeout 120s'
# shellcheck disable=SC2086 # words
{
    picture grub 0 "$firmware/grub.iso" --disk "$firmware/disk.img,snapshot" $screen --wait-text 'grub>' --type 'ls\r' \
        --wait-text '(fd0)\ngrub>' --type 'cat (hd0,1)/hello.txt\r' --wait-text 'from-the-disk'
    picture memtest 0 /usr/lib/memtest86+/memtest86+x64.iso -m 16M $screen --wait-text 'Pass  4%'
    picture ipxe 0 /boot/ipxe.lkrn $screen --wait-text 'Open Source Network Boot Firmware'
    picture boot-menu 0 --disk "$firmware/disk.img,snapshot" --cdrom "$firmware/grub.iso" $screen \
        --wait-text 'boot menu' --type '\{f12}' --wait-text '2. disk'
}
picture uefi 0 --bios /usr/share/OVMF/OVMF_CODE_4M.fd --until 'Shell>'
# Its first dialog, after which it waits for ever.
picture installer 124 --kernel "$folder/installer/amd64/gtk/linux" --initrd "$folder/installer/amd64/gtk/initrd.gz" -m 1G \
    --append 'quiet vga=788' --serial none --timeout 120s
# Guest RAM of a small system behind a limit.
case $wanted in
    *" memory "* | "  ")
        sh "$(dirname "$0")/fetch.sh" "$folder" cloud
        "$umbra" inspect heat --kernel "$folder/vmlinuz-cloud" --initrd "$folder/initrd-64.cpio.gz" --append 'console=ttyS0 quiet panic=-1' \
            --headless -m 128M --memory-limit 64M --until BOOT-OK --timeout 120s --output "$docs/memory.svg" > "$log" 2>&1 < /dev/null \
            || { cat "$log"; echo "pictures.sh: memory: FAILED"; exit 1; }
        echo "memory: $(wc -c < "$docs/memory.svg") bytes"
        ;;
esac
# Guest RAM by when its pages were used: the last look at a boot of a second or two.
case $wanted in
    *" recency "* | "  ")
        sh "$(dirname "$0")/fetch.sh" "$folder" cloud
        socket=$(mktemp -u)
        "$umbra" run --kernel "$folder/vmlinuz-cloud" --initrd "$folder/initrd-64.cpio.gz" --append 'console=ttyS0 quiet panic=-1' \
            --headless -m 128M --timeout 120s --control "$socket" > "$log" 2>&1 < /dev/null &
        guest=$!
        until [ -S "$socket" ]; do sleep 0.05; done
        "$umbra" inspect heat --connect "$socket" --follow 200ms --output "$docs/recency.svg" > /dev/null
        wait "$guest" || { cat "$log"; echo "pictures.sh: recency: FAILED"; exit 1; }
        echo "recency: $(wc -c < "$docs/recency.svg") bytes"
        ;;
esac
# The same boot as a trace, which Perfetto opens as it is.
case $wanted in
    *" trace "* | "  ")
        sh "$(dirname "$0")/fetch.sh" "$folder" cloud
        "$umbra" run --kernel "$folder/vmlinuz-cloud" --initrd "$folder/initrd-64.cpio.gz" --append 'console=ttyS0 quiet panic=-1' \
            --headless -m 128M --memory-limit 64M --until BOOT-OK --timeout 120s --trace-events "$docs/boot.json" > "$log" 2>&1 < /dev/null \
            || { cat "$log"; echo "pictures.sh: trace: FAILED"; exit 1; }
        gzip -9nf "$docs/boot.json"
        echo "trace: $(wc -c < "$docs/boot.json.gz") bytes"
        ;;
esac
case $wanted in
    *" panel "* | "  ")
        sh "$(dirname "$0")/fetch.sh" "$folder" cloud
        bash "$(dirname "$0")/panel.sh" "$umbra" "$folder" "$docs/panel.png"
        ;;
esac
echo "pictures.sh: all good"
