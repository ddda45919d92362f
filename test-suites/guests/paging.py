#!/usr/bin/env python3
"""paging.py UMBRA DIR [NAME]

A guest of 1 GiB whose RAM is paged, in the kernel NAME (cloud) that fetch.sh brought to DIR, with memwork.c as its program:

* a limit of 256 MiB over 500 MiB of which 150 are worked on: the same checksum as without a limit, and at least 90 % of its
  speed once the rest has left (the guest's time for 200 rounds after the first 105, both at once on a processor each and then
  exchanged, mean of six);
* 600 MiB worked on under the same limit: the same checksum;
* 700 MiB touched, then 70 used, while the host is said to need memory: at most 20 % of RAM is in after 30 s;
* the same in a cgroup whose limit the guest would fill, where this process may make one: it says so itself;
* the first two in QEMU TCG, in a cgroup of 256 MiB beside a swap file of 2 GiB, which only root can make (UMBRA_PAGING=qemu
  does nothing else): the same checksums, and we are faster (seconds on the clock and of CPU, whole runs in turns, medians of
  three). The limit counts guest RAM here and all of the process there, so we are also run in a cgroup of that size as a whole,
  where code cache, lifted blocks and monitor tables leave guest RAM some 100 MiB: that is not faster yet where all 600 MiB are
  worked on, and may take 1.6 times QEMU's time at most.

Whenever it is looked at, guest RAM in the host's memory is at most the limit and a tenth. Needs gcc. UMBRA_PAGING=short leaves
out the speed, which a crowded host disturbs.
"""
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

GUEST = 1024
# Of QEMU's time, at most.
MOST = {"umbra": 1.0, "umbra in the cgroup": 1.6}
HERE = os.path.dirname(os.path.abspath(__file__))


def guest_ram(pid):
    """MiB of the guest's RAM that the host holds: of the mapping that is large enough to be it."""
    rss = size = 0
    try:
        with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
            for line in smaps:
                if line.startswith("Size:"):
                    size = int(line.split()[1])
                elif line.startswith("Rss:") and size > GUEST * 1024:
                    rss = max(rss, int(line.split()[1]))
    except OSError:
        pass
    return rss / 1024


class Bench:
    def __init__(self, umbra, folder, name):
        self.umbra, self.folder, self.name = os.path.abspath(umbra), os.path.abspath(folder), name
        self.wrong = []
        self.folder_of_work = tempfile.TemporaryDirectory()
        self.work = self.folder_of_work.name
        program = f"{self.work}/memwork"
        subprocess.run(["gcc", "-O2", "-static", "-o", program, f"{HERE}/memwork.c"], check=True)
        busybox = f"{self.work}/bin/busybox"
        unpack = f"zcat {self.folder}/initrd-64.cpio.gz | cpio -idm --quiet bin/busybox"
        subprocess.run(["sh", "-c", unpack], cwd=self.work, check=True)
        self.initrd = f"{self.work}/initrd.gz"
        subprocess.run(["sh", f"{HERE}/mkinitramfs.sh", self.initrd, busybox, program], check=True)

    def complain(self, text):
        self.wrong.append(text)
        print(f"  WRONG: {text}")

    def command(self, words, options):
        return [self.umbra, "run", "--headless", "--json", "-m", f"{GUEST}M", "--timeout", "900s", *self.guest(words), *options]

    def guest(self, words, dashes="--"):
        return [f"{dashes}kernel", f"{self.folder}/vmlinuz-{self.name}", f"{dashes}initrd", self.initrd,
                f"{dashes}append", f"console=ttyS0 quiet panic=-1 run=memwork,{words}"]

    def end(self):
        if self.wrong:
            sys.exit("paging.py: " + "; ".join(self.wrong))

    def run(self, words, options, limit=None, seconds=None, enter=None):
        """One run: output, summary, CPU seconds, and guest RAM in memory as (seconds, MiB)."""
        command = self.command(words, options)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=enter)
            began, curve = time.monotonic(), []
            while child.poll() is None:
                curve.append((time.monotonic() - began, guest_ram(child.pid)))
                if seconds and curve[-1][0] > seconds:
                    child.terminate()
                time.sleep(0.25)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = [line for line in texts[1].splitlines() if line.startswith("{")]
        summary = json.loads(lines[-1]) if lines else {}
        if not seconds and (child.returncode != 0 or "checksum" not in texts[0]):
            sys.exit(f"paging.py: {words} {options} did not come to its end: {texts[0][-300:]} {texts[1][-500:]}")
        most = max((mib for _, mib in curve), default=0)
        if limit and most > limit * 1.1:
            self.complain(f"{words}: {most:.0f} MiB of guest RAM in memory, the limit is {limit}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = re.search(r"checksum (\w+)", texts[0])
        return found and found[1], summary.get("mmu", {}).get("reclaim", {}), cpu, curve, most

    def survives(self, words, limit):
        free = self.run(words, ["--clock", "virtual"])
        tight = self.run(words, ["--clock", "virtual", "--memory-limit", f"{limit}M"], limit)
        counts = tight[1]
        print(f"memwork {words}, limit {limit} MiB: checksum {tight[0]}, at most {tight[4]:.0f} MiB of guest RAM in memory, "
              f"{counts['evictions']} pages taken away, {counts['swap_ins']} brought back, {tight[2]:.1f} s of CPU against {free[2]:.1f}")
        if tight[0] != free[0] or not free[0]:
            self.complain(f"{words}: checksums {free[0]} and {tight[0]}")
        if counts["swap_ins"] < 1000:
            self.complain(f"{words}: hardly anything was swapped: {counts}")

    def rounds(self, options, processor):
        """Starts the guest on one processor; gives what waits for it, which gives milliseconds of its rounds after the first 105."""
        pin = (lambda: os.sched_setaffinity(0, {processor})) if processor is not None else None
        child = subprocess.Popen(self.command("500,150,305", options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, errors="replace", preexec_fn=pin)

        def ended():
            out, err = child.communicate()
            times = [float(ms) for ms in re.findall(r"round \d+ ([\d.]+) ms", out)]
            if len(times) != 305:
                sys.exit(f"paging.py: {options} did not come to its end: {out[-300:]} {err[-500:]}")
            return sum(times[105:])
        return ended

    def speed(self):
        """Free and limited at the same time, each on a processor of its own; then exchanged: the host's moods meet both alike."""
        processors = sorted(os.sched_getaffinity(0))[:2]
        kinds, ratios = ([], ["--memory-limit", "256M"]), []
        for turn in range(6):
            order = kinds if turn % 2 == 0 else kinds[::-1]
            if len(processors) == 2:
                waiting = [self.rounds(options, processor) for options, processor in zip(order, processors)]
                times = [ended() for ended in waiting]
            else:
                times = [self.rounds(options, None)() for options in order]
            free, limited = times if turn % 2 == 0 else times[::-1]
            ratios.append(free / limited)
        ratio = statistics.geometric_mean(ratios)
        print(f"200 rounds over 150 of 500 MiB: {ratio:.0%} of the speed without a limit "
              f"({', '.join(f'{one:.0%}' for one in ratios)})")
        if ratio < 0.9:
            self.complain(f"a working set below the limit runs at {ratio:.0%}")

    def shrinks(self, options, what, enter=None):
        _, _, _, curve, most = self.run("700,70,1000000", options, seconds=60, enter=enter)
        peak = next(at for at, mib in curve if mib == most)
        small = next((at for at, mib in curve if at > peak and mib <= GUEST / 5), None)
        shown = ", ".join(f"{at - peak:.0f} s: {mib:.0f}" for at, mib in curve[::20] if at >= peak)
        print(f"700 MiB touched, 70 used, {what}: {most:.0f} MiB in memory, then {shown}")
        return most, small and small - peak

    def in_cgroup(self, limit):
        """Enters a cgroup with a limit, or gives nothing where that is not allowed."""
        with open("/proc/self/cgroup", encoding="ascii") as file:
            groups = [line.strip().split(":", 2) for line in file]
        v1 = next((path for _, names, path in groups if "memory" in names.split(",")), None)
        v2 = next((path for number, _, path in groups if number == "0"), None)
        for top, name, knob in ((f"/sys/fs/cgroup/memory{v1}", "v1", "memory.limit_in_bytes"),
                                (f"/sys/fs/cgroup{v2}", "v2", "memory.max")):
            group = f"{top}/umbra-paging-{os.getpid()}"
            try:
                os.mkdir(group)
                with open(f"{group}/{knob}", "w", encoding="ascii") as file:
                    file.write(str(limit << 20))
            except OSError:
                if os.path.isdir(group):
                    os.rmdir(group)
                continue

            def enter(group=group):
                with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write(str(os.getpid()))
            return name, group, enter
        return None


    def timed(self, command, enter):
        """Checksum, seconds on the clock, CPU seconds."""
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              preexec_fn=enter, timeout=3600, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = re.search(r"checksum (\w+)", done.stdout)
        if not found:
            sys.exit(f"paging.py: {command[0]} did not come to its end: {done.stdout[-300:]} {done.stderr[-500:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return found[1], time.monotonic() - began, cpu

    def beside_qemu(self, limit):
        """Both workloads here and in QEMU, in cgroups of one size with a swap file."""
        group = self.in_cgroup(limit)
        if not group or os.geteuid() != 0 or not shutil.which("qemu-system-x86_64"):
            print("QEMU in a cgroup: left out (it needs root, a memory cgroup and qemu-system-x86_64)")
            return
        version, folder, enter = group
        swap = f"{self.work}/swap"
        try:
            subprocess.run(["fallocate", "-l", "2G", swap], check=True)
            os.chmod(swap, 0o600)
            subprocess.run(["mkswap", "-q", swap], check=True)
            subprocess.run(["swapon", swap], check=True)
            try:
                for words in ("500,150,105", "600,600,3"):
                    self.compare(words, limit, enter, version)
            finally:
                subprocess.run(["swapoff", swap], check=True)
        finally:
            os.unlink(swap)
            time.sleep(0.5)
            os.rmdir(folder)

    def compare(self, words, limit, enter, version):
        qemu = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "pc", "-cpu", "max", "-m", str(GUEST), "-nographic",
                "-no-reboot", "-nodefaults", "-serial", "stdio", *self.guest(words, "-")]
        ours = self.command(words, ["--memory-limit", f"{limit}M"])
        # All of the process in the same cgroup: it makes room for what is not guest RAM by itself.
        inside = self.command(words, ["--memory-policy", "paged"])
        found = {"umbra": [], "umbra in the cgroup": [], "qemu in the cgroup": []}
        for _ in range(3):
            for name, command, into in zip(found, (ours, inside, qemu), (None, enter, enter)):
                found[name].append(self.timed(command, into))
        sums = {sum_ for runs in found.values() for sum_, _, _ in runs}
        times = {name: [statistics.median(run[i] for run in runs) for i in (1, 2)] for name, runs in found.items()}
        shown = ", ".join(f"{name} {wall:.1f} s ({cpu:.1f} of CPU)" for name, (wall, cpu) in times.items())
        print(f"memwork {words}, {limit} MiB (cgroup {version}, swap file of 2 GiB): {shown}")
        if len(sums) != 1:
            self.complain(f"{words}: checksums {sums}")
        for name, most in MOST.items():
            ratio = times[name][0] / times["qemu in the cgroup"][0]
            if ratio > most:
                self.complain(f"{words}: {name} takes {ratio:.2f} of QEMU's time, {most} are allowed")


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    bench = Bench(*(sys.argv[1:] + ["cloud"])[:3])
    how = os.environ.get("UMBRA_PAGING")
    if how == "qemu":
        bench.beside_qemu(256)
        bench.end()
        return
    bench.survives("500,150,5", 256)
    bench.survives("600,600,3", 256)
    if how != "short":
        bench.speed()
    _, after = bench.shrinks(["--memory-policy", "paged", "--memory-pressure", "tight"], "under pressure")
    if after is None or after > 30:
        bench.complain(f"it did not shrink to a fifth within 30 s, but {after}")
    group = bench.in_cgroup(600)
    if group:
        version, folder, enter = group
        most, _ = bench.shrinks(["--memory-policy", "paged"], f"in a cgroup ({version}) of 600 MiB", enter)
        if most > 600 or most < 300:
            bench.complain(f"{most:.0f} MiB in a cgroup of 600")
        time.sleep(0.5)
        os.rmdir(folder)
    else:
        print("no cgroup can be made here: left out")
    if how != "short":
        bench.beside_qemu(256)
    bench.end()


main()
