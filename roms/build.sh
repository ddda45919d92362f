#!/bin/sh
# Assembles every ROM beside its source (needs nasm): roms/demo/demo.asm → demo.bin, roms/vga/vga.asm, roms/tests/*.asm →
# *.bin, and the frames of the suites, *.frame (suites/build.py then makes the suites).
# With a folder as argument, the images go there instead, under the same names.
set -eu
cd "$(dirname "$0")"
out=${1:-}
for source in demo/demo.asm vga/vga.asm tests/*.asm suites/frame*.asm; do
    [ -e "$source" ] || continue
    case $source in
        suites/*) image=${source%.asm}.frame ;;
        *) image=${source%.asm}.bin ;;
    esac
    if [ -n "$out" ]; then
        image=$out/$(basename "$image")
    fi
    nasm -f bin -o "$image" "$source"
done
