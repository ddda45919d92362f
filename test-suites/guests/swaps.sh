#!/usr/bin/env bash
# swaps.sh UMBRA FOLDER: two swap worlds at once. Debian's amd64 kernel with a swap area of its own works on more memory than it
# has, while the host has less for it than it believes: what the guest swaps out may be in our swap file while its disk's DMA reads
# it, and what comes back may come from both. The checksum is what the same program gives on the host.
# With the JIT, on AHCI and on IDE, minutes each. Needs apt, gcc, cpio, python3; what it fetches stays in FOLDER.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: swaps.sh UMBRA FOLDER" >&2; exit 2; }
umbra=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2"
folder=$(realpath "$2")
sh "$here/fetch.sh" "$folder" cloud drivers
source "$here/helpers.sh"
work_in_a_folder

fail() {
    echo "swaps.sh: $*" >&2
    tail -n 20 log >&2
    exit 1
}

words="230 230 2"
mkdir -p over/opt
gcc -O2 -static -o over/opt/memwork "$here/memwork.c"
(cd over && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n > over.cpio.gz
zcat "$folder/initrd-64.cpio.gz" | cpio -idm --quiet bin/busybox
sh "$here/storage-initrd.sh" storage.cpio.gz bin/busybox "$folder"/drivers/lib/modules/*/kernel
# shellcheck disable=SC2086 # three words
wanted=$(over/opt/memwork $words | grep checksum)

try() { # INTERFACE
    local name=$1 from=$SECONDS
    rm -f disk.img && truncate -s 512M disk.img
    "$umbra" run --headless --json --engine jit --kernel "$folder/drivers/vmlinuz" --initrd storage.cpio.gz --initrd over.cpio.gz \
        --append "console=ttyS0 quiet panic=-1 wait=sda run=mkswap,/dev/sda;swapon,/dev/sda;/opt/memwork,${words// /,};grep,pswp,/proc/vmstat" \
        -m 192M --memory-limit 96M --disk "disk.img,if=$1" --timeout 600s --fail-on 'Kernel panic' > log 2> summary < /dev/null \
        || fail "$name: status $?: $(tail -n 3 summary)"
    tr -d '\r' < log | grep -qx "$wanted" || fail "$name: not the checksum of the host ($wanted)"
    local out in
    out=$(tr -d '\r' < log | sed -n 's/^pswpout //p') in=$(tr -d '\r' < log | sed -n 's/^pswpin //p')
    [ "$out" -gt 10000 ] && [ "$in" -gt 10000 ] || fail "$name: the guest swapped $out pages out and $in in"
    python3 - "$name" "$out" "$in" $((SECONDS - from)) << 'PYTHON' || fail "$name: the host hardly swapped"
import json, sys
name, out, back, seconds = sys.argv[1:]
counts = json.loads([line for line in open("summary", encoding="utf-8") if line.startswith("{")][-1])["mmu"]["reclaim"]
print(f"{name}: good; the guest swapped {out} pages out and {back} in, the host {counts['swap_written'] >> 20} MiB out and "
      f"{counts['swap_ins']} pages in, at most {counts['most_resident'] >> 8} MiB in memory; {seconds} s")
sys.exit(counts["swap_ins"] < 10000)
PYTHON
}

for interface in ahci ide; do try $interface; done
echo "swaps.sh: all good"
