#!/bin/sh
# gdb.sh UMBRA DIR [OPTION...]
#
# Debian's gdb with the cloud kernel that fetch.sh brought to DIR: attaches at power-on, breaks at the kernel's entry, in the kernel
# proper and at the first instruction of busybox in user space, steps there, watches the stack, writes and reads memory, and
# lets the guest go on until it powers off.
set -eu
[ $# -ge 2 ] || { echo "usage: gdb.sh UMBRA DIR [OPTION...]" >&2; exit 2; }
umbra=$1 dir=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"; [ -z "${pid:-}" ] || kill "$pid" 2> /dev/null || true' EXIT

gzip -dc "$dir/initrd-64.cpio.gz" | cpio -i --quiet --to-stdout bin/busybox > "$work/busybox"
entry=0x$(od -An -t x8 -j 24 -N 8 "$work/busybox" | tr -d ' ')

"$umbra" run --headless --kernel "$dir/vmlinuz-cloud" --initrd "$dir/initrd-64.cpio.gz" --gdb 127.0.0.1:0 \
    --append "console=ttyS0 quiet panic=-1 nokaslr" -m 256M --timeout 300s "$@" \
    > "$work/serial" 2> "$work/umbra" < /dev/null &
pid=$!
tries=0
until grep -q "target remote" "$work/umbra"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "gdb.sh: umbra does not wait for gdb:" >&2; cat "$work/umbra" >&2; exit 1; }
    sleep 0.1
done
address=$(sed -n 's/.*target remote //p' "$work/umbra" | head -n 1)

cat > "$work/script" <<GDB
set pagination off
set confirm off
set width 0
target remote $address
printf "entry: long mode %d, level %d\n", (\$efer >> 10) & 1, \$cs & 3
printf "header: %c%c%c%c\n", *(char *)(\$rsi + 0x202), *(char *)(\$rsi + 0x203), *(char *)(\$rsi + 0x204), *(char *)(\$rsi + 0x205)
set \$first = \$pc
stepi
printf "stepped: %d bytes\n", \$pc - \$first
hbreak *$entry
continue
printf "user: %d at %lx\n", \$cs & 3, \$pc
set \$stack = \$rsp
printf "arguments: %ld\n", *(long *)\$rsp
stepi
stepi
printf "paging: %d\n", (\$cr0 >> 31) & 1
delete
awatch *(long *)(\$stack - 8)
continue
delete
set var *(long *)(\$stack - 8) = 0x1122334455667788
printf "written: %lx\n", *(long *)(\$stack - 8)
continue
GDB
gdb -nx -batch -x "$work/script" > "$work/gdb" 2>&1 || true
status=0
wait "$pid" || status=$?
pid=
for wanted in "entry: long mode 1, level 0" "header: HdrS" "stepped: [1-9]" "user: 3 at $(printf %x "$entry")" "arguments: [1-9]" \
    "paging: 1" "Hardware access (read/write) watchpoint" "written: 1122334455667788" "exited normally"; do
    grep -q "$wanted" "$work/gdb" || { echo "gdb.sh: gdb does not say \"$wanted\":" >&2; cat "$work/gdb" >&2; exit 1; }
done
[ $status -eq 0 ] && grep -q BOOT-OK "$work/serial" || { echo "gdb.sh: the guest ended with $status" >&2; exit 1; }
echo "gdb: attached at power-on, broke at the entry and in user space, stepped, watched, wrote; the guest then powered off"
