#!/usr/bin/env python3
"""roots.py UMBRA DIR [KERNEL]

What becomes of monitor roots, TLB entries and chains when CR3 is loaded, on guestbench's os.pipe, os.fork and os.exec. Each
runs in the kernel that `umbra bench --guests DIR` brought to DIR, on the virtual clock; what booting alone counts is taken off. The same again
with --disable=roots. Fails if fewer than 95 % of the loads on os.pipe met their root, if those met no live TLB entries, if
chains had to be made again, or if --disable=roots keeps a root.
"""
import json
import resource
import subprocess
import sys

SCALE = "3"


def run(umbra, folder, kernel, words, options):
    """The counters of one run, and its CPU seconds."""
    bits = 32 if kernel in ("686", "pae") else 64
    command = [umbra, "run", "--headless", "--json", "--clock", "virtual", "-m", "256M", "--timeout", "600s",
               "--kernel", f"{folder}/kernels/vmlinuz-{kernel}", "--initrd", f"{folder}/img/initrd{bits}.cpio.gz",
               "--append", f"console=ttyS0 quiet panic=-1 gb={words}", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = b"BOOT-OK" if words == "none" else b"# end " + words.split(",")[-1].encode()
    if done.returncode != 0 or last not in done.stdout or b"ALL-DONE" not in done.stdout:
        sys.exit(f"roots.py: gb={words} did not come to its end: {done.stderr[-500:].decode(errors='replace')}")
    summary = json.loads([line for line in done.stderr.splitlines() if line.startswith(b"{")][-1])
    mmu, jit = summary["mmu"], summary["jit"]
    return {
        "met": mmu["root_hits"], "new": mmu["root_misses"], "kept": mmu["kept_entries"], "chains": jit["chains"],
        "slow": mmu["slow_accesses"],
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    umbra, folder, kernel = (sys.argv[1:] + ["cloud"])[:3]
    wrong = []
    print(f"{'':<22}{'CR3 loads':>10}{'root met':>10}{'entries alive':>15}{'chains/load':>13}{'slow/load':>11}{'CPU s':>8}")
    for options in ([], ["--disable=roots"]):
        boot = run(umbra, folder, kernel, "none", options)
        for name in ("os.pipe", "os.fork", "os.exec"):
            all_of_it = run(umbra, folder, kernel, f"-m,-s,{SCALE},{name}", options)
            own = {key: all_of_it[key] - boot[key] for key in boot}
            loads = max(own["met"] + own["new"], 1)
            share, alive = own["met"] / loads, own["kept"] / max(own["met"], 1)
            print(f"{name + (' no roots' if options else ''):<22}{loads:>10}{share:>10.1%}{alive:>15.1f}"
                  f"{own['chains'] / loads:>13.3f}{own['slow'] / loads:>11.2f}{own['cpu']:>8.2f}")
            if options and own["met"]:
                wrong.append(f"{name}: --disable=roots kept {own['met']} roots")
            if not options and name == "os.pipe" and (share < 0.95 or alive < 16 or own["chains"] > loads / 4):
                wrong.append(f"{name}: roots, entries or chains did not live on")
    if wrong:
        sys.exit("roots.py: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
