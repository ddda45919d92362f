#!/bin/sh
# frames.sh UMBRA DIR NAME [OPTION...]
#
# Boots the kernel NAME that fetch.sh brought to DIR on the virtual clock, each time with its pages elsewhere in host memory:
# frames in order, frames scattered by a seed, a compaction storm that moves every frame every 50 ms, and an eighth of them at a
# time, the others in a swap file. Passes if the guest could not tell: the same serial output and the same hash of its final
# state (SHADOW-MMU S1, S16). Logs are in DIR.
set -eu
[ $# -ge 3 ] || { echo "usage: frames.sh UMBRA DIR NAME [OPTION...]" >&2; exit 2; }
umbra=$1 dir=$2 name=$3
shift 3
case $name in
    686 | pae) bits=32 ;;
    *) bits=64 ;;
esac

# One number of the summary.
field() { sed -n "s/.*\"$2\":\"\{0,1\}\([0-9a-f]*\).*/\1/p" "$dir/$name-$1.json"; }

# boot VARIANT OPTION...
boot() {
    variant=$1
    shift
    status=0
    "$umbra" run --headless --clock virtual --kernel "$dir/vmlinuz-$name" --initrd "$dir/initrd-$bits.cpio.gz" \
        --append "console=ttyS0 panic=-1" -m 256M --timeout 600s --json --serial "file:$dir/$name-$variant.log" "$@" \
        > "$dir/$name-$variant.json" < /dev/null || status=$?
    if [ $status -ne 0 ] || ! grep -q ALL-DONE "$dir/$name-$variant.log"; then
        echo "frames.sh: $name ($variant) did not boot to user space and power off (status $status); its end:" >&2
        tail -n 25 "$dir/$name-$variant.log" >&2
        exit 1
    fi
    if ! cmp -s "$dir/$name-identity.log" "$dir/$name-$variant.log"; then
        echo "frames.sh: $name ($variant) printed something else; compare $dir/$name-identity.log and $dir/$name-$variant.log" >&2
        exit 1
    fi
    if [ "$(field $variant state_hash)" != "$(field identity state_hash)" ]; then
        echo "frames.sh: $name ($variant) ended in state $(field $variant state_hash), not $(field identity state_hash)" >&2
        exit 1
    fi
}

boot identity "$@"
boot permuted --frame-order permuted:1 "$@"
boot storm --frame-order permuted:2 --compact-every 50ms "$@"
moves=$(field storm moves)
[ "$moves" -gt 65536 ] || { echo "frames.sh: only $moves frames were moved" >&2; exit 1; }
# Without the balloon that a paged guest gets: it would be another board.
boot limited --memory-limit 24M --balloon off "$@"
swapped=$(field limited swap_ins)
[ "$swapped" -gt 1000 ] || { echo "frames.sh: only $swapped frames came back from the swap file" >&2; exit 1; }
echo "$name: state $(field identity state_hash) in order, scattered, with $moves frames moved, and with $swapped brought back"
