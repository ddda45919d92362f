#!/bin/sh
# boot.sh UMBRA DIR NAME [OPTION...]
#
# Boots the kernel NAME that fetch.sh brought to DIR, headless, until it powers off. Passes if the guest printed BOOT-OK and
# ALL-DONE and Umbra exited with 0. The serial output is in DIR/NAME.log.
set -eu
[ $# -ge 3 ] || { echo "usage: boot.sh UMBRA DIR NAME [OPTION...]" >&2; exit 2; }
umbra=$1 dir=$2 name=$3
shift 3
case $name in
    686 | pae) bits=32 ;;
    *) bits=64 ;;
esac
log=$dir/$name.log
status=0
"$umbra" run --headless --kernel "$dir/vmlinuz-$name" --initrd "$dir/initrd-$bits.cpio.gz" \
    --append "console=ttyS0 quiet panic=-1" -m 256M --timeout 600s "$@" > "$log" < /dev/null || status=$?
if [ $status -ne 0 ] || ! grep -q BOOT-OK "$log" || ! grep -q ALL-DONE "$log"; then
    echo "boot.sh: $name did not boot to user space and power off (status $status); the end of $log:" >&2
    tail -n 25 "$log" >&2
    exit 1
fi
echo "$name: $(grep -o 'BOOT-OK [0-9.]*' "$log") s after power-on, powered off"
