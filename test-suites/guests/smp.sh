#!/bin/sh
# smp.sh UMBRA DIR NAME CPUS [OPTION...]
#
# Boots the kernel NAME that fetch.sh brought to DIR with so many processors. Passes if it powers off after user space saw them
# all, and the kernel found no processor that was stuck. The log is DIR/NAME-CPUS.log.
set -eu
[ $# -ge 4 ] || { echo "usage: smp.sh UMBRA DIR NAME CPUS [OPTION...]" >&2; exit 2; }
umbra=$1 dir=$2 name=$3 cpus=$4
shift 4
case $name in
    686 | pae) bits=32 ;;
    *) bits=64 ;;
esac
log=$dir/$name-$cpus.log
status=0
"$umbra" run --headless --kernel "$dir/vmlinuz-$name" --initrd "$dir/initrd-$bits.cpio.gz" --cpus "$cpus" \
    --append "console=ttyS0 panic=-1 run=cat,/proc/cpuinfo" -m 256M --timeout 600s "$@" > "$log" < /dev/null || status=$?
fail() {
    echo "smp.sh: $name with $cpus processors: $1 (status $status); the end of $log:" >&2
    tail -n 25 "$log" >&2
    exit 1
}
[ $status -eq 0 ] && grep -q ALL-DONE "$log" || fail "did not boot to user space and power off"
[ "$(grep -c '^processor' "$log")" -eq "$cpus" ] || fail "not all processors are online"
if grep -E 'soft lockup|hard LOCKUP|rcu.*stall|BUG:|Oops|hung task' "$log" >&2; then fail "something got stuck"; fi
echo "$name: $cpus processors, $(grep -ao 'BOOT-OK [0-9.]*' "$log") s after power-on"
