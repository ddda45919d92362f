#!/bin/sh
# Assembles every test kernel beside its source (needs nasm); with a folder as argument, the images go there.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
for source in *.asm; do
    nasm -f bin -o "$out/${source%.asm}.flat" "$source"
done
