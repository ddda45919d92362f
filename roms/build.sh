#!/bin/sh
# Assembles every ROM beside its source (needs nasm): roms/demo/demo.asm → demo.bin, roms/vga/vga.asm, roms/bios/bios.asm,
# roms/bios/check/check.asm, roms/vgabios/vgabios.asm, roms/tests/*.asm → *.bin, and the frames of the suites, *.frame
# (suites/build.py then makes the suites). With a folder as argument, the images go there instead, under the same names.
set -eu
cd "$(dirname "$0")"
out=${1:-}
for source in demo/demo.asm vga/vga.asm bios/bios.asm bios/check/check.asm vgabios/vgabios.asm tests/*.asm suites/frame*.asm; do
    [ -e "$source" ] || continue
    case $source in
        suites/*) image=${source%.asm}.frame ;;
        *) image=${source%.asm}.bin ;;
    esac
    if [ -n "$out" ]; then
        image=$out/$(basename "$image")
    fi
    sum=0
    if grep -q SUM "$source"; then
        # The bytes of an option ROM sum up to 0: its last one is what is missing.
        nasm -f bin -D SUM=0 -o "$image" "$source"
        sum=$(od -An -v -tu1 "$image" | awk '{ for (i = 1; i <= NF; i++) sum += $i } END { print (256 - sum % 256) % 256 }')
    fi
    nasm -f bin -D "SUM=$sum" -o "$image" "$source"
done
