#!/bin/sh
# memtest.sh UMBRA DIR [ia32|x64] [OPTION...]      default: x64
#
# Brings Debian's memtest86+ to DIR by apt, starts it on 16 MiB, and passes if its first pass ends without an error. The serial
# output is in DIR/memtest-NAME.log.
set -eu
[ $# -ge 2 ] || { echo "usage: memtest.sh UMBRA DIR [ia32|x64] [OPTION...]" >&2; exit 2; }
umbra=$1 dir=$2 name=${3:-x64}
shift 2
[ $# -eq 0 ] || shift
image=$dir/memtest86+$name.bin
if [ ! -s "$image" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    mkdir -m 777 "$work/one"
    mkdir -p "$dir"
    apt-cache show memtest86+ > /dev/null 2>&1 || apt-get update -qq || true
    (cd "$work/one" && apt-get download -qq memtest86+ >&2)
    dpkg-deb --fsys-tarfile "$work"/one/*.deb | tar -xO "./boot/memtest86+$name.bin" > "$work/image"
    mv "$work/image" "$image"
fi
log=$dir/memtest-$name.log
status=0
"$umbra" run --headless --kernel "$image" --append "console=ttyS0,115200" -m 16M --timeout 900s \
    --until 'Pass complete|Pass: +[1-9]' --fail-on 'Errors: +[1-9]' "$@" > "$log" < /dev/null || status=$?
if [ $status -ne 0 ]; then
    echo "memtest.sh: no first pass without errors (status $status); the end of $log:" >&2
    tail -c 1000 "$log" >&2
    exit 1
fi
echo "memtest86+ $name: a first pass on 16 MiB without errors"
