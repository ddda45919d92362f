#!/usr/bin/env python3
"""shared.py UMBRA DIR [NAME]

Ten identical guests (UMBRA_SHARED=N: so many) of 256 MiB in the kernel NAME (cloud) that fetch.sh brought to DIR, in one process by
`umbra batch --share`: they boot to user space and sleep. Measured from the host's side, once it does not change any more:

* guest RAM in memory: of one guest alone, and of all; each further one costs at most 35 % of the first;
* the whole process, with code caches and tables, which are nobody's guest memory but cost as much;
* pages shared, frames that they share, and breaks, as the guests' control sockets tell; and that all audits are clean.

Then, with three guests more: one whose swap folder is full (a small file system, where this process may mount one) ends with its sentence,
and the others power off. Kernels place themselves by chance, and text at another address is other text: the guests are told nokaslr;
UMBRA_SHARED_KASLR=1 leaves that out and only reports.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

GUEST = 256
AT_MOST = 0.35


def mappings(pid):
    """KiB in the host's memory: of guest RAM (the pool and the shared frames, by far the largest mappings), and of the process."""
    ram = total = size = 0
    try:
        with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
            for line in smaps:
                if line.startswith("Size:"):
                    size = int(line.split()[1])
                elif line.startswith("Pss:"):
                    pss = int(line.split()[1])
                    total += pss
                    ram += pss if size >= GUEST * 1024 else 0
    except OSError:
        pass
    return ram, total


class Bench:
    def __init__(self, umbra, folder, name):
        self.umbra, self.folder, self.name = os.path.abspath(umbra), os.path.abspath(folder), name
        self.wrong = []
        self.folder_of_work = tempfile.TemporaryDirectory()
        self.work = self.folder_of_work.name

    def complain(self, text):
        self.wrong.append(text)
        print(f"  WRONG: {text}")

    def machine(self, number, words, extra=""):
        kaslr = "" if os.environ.get("UMBRA_SHARED_KASLR") else " nokaslr"
        path = f"{self.work}/guest-{number}.toml"
        with open(path, "w", encoding="ascii") as file:
            file.write(f"""memory = "{GUEST}M"
clock = "real"
[boot]
kernel = "{self.folder}/vmlinuz-{self.name}"
initrd = ["{self.folder}/initrd-64.cpio.gz"]
append = "console=ttyS0 quiet panic=-1{kaslr} run={words}"
[trace]
control = "{self.work}/guest-{number}.socket"
[run]
timeout = "900s"
{extra}""")
        return path

    def batch(self, files):
        self.log = open(f"{self.work}/batch.log", "w+", encoding="utf-8")
        return subprocess.Popen([self.umbra, "batch", "--share", *files, "--logs", f"{self.work}/logs", f"--json={self.work}/report.json"],
                                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def settled(self, child):
        """The figures of a process once they have not fallen by a hundredth for 20 s, and how long that took."""
        began = lowest_at = time.monotonic()
        lowest = None
        while time.monotonic() - began < 420:
            time.sleep(1)
            if child.poll() is not None:
                self.log.seek(0)
                sys.exit(f"shared.py: the batch ended: {self.log.read()[-1500:]}")
            now = mappings(child.pid)[0]
            if time.monotonic() - began < 15 or lowest is None or now < lowest * 0.99 or now > lowest * 1.02:
                lowest, lowest_at = now, time.monotonic()
            elif time.monotonic() - lowest_at > 20:
                break
        return mappings(child.pid), lowest_at - began

    def inspect(self, what, number):
        command = [self.umbra, "inspect", what, "--json", "--connect", f"{self.work}/guest-{number}.socket"]
        done = subprocess.run(command, capture_output=True, check=False)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            self.complain(f"inspect {what} of guest {number}: {done.stdout[-200:]} {done.stderr[-200:]}")
            return {}

    def idle(self, count):
        """So many guests asleep: KiB of guest RAM, of the process, and seconds."""
        child = self.batch([self.machine(number, "sleep,100000") for number in range(count)])
        try:
            (ram, total), seconds = self.settled(child)
            sums = {}
            for number in range(count):
                counts = self.inspect("reclaim", number).get("reclaim", {})
                sums = {name: sums.get(name, 0) + counts.get(name, 0) for name in ("shared", "joins", "breaks", "resident")}
                sums["frames"] = counts.get("shared_frames", 0)
                audit = self.inspect("audit", number)
                wrong = [what for part in (audit.get("monitor", {"wrong": ["no audit"]}), *audit.get("tlbs", [])) for what in part["wrong"]]
                if wrong:
                    self.complain(f"audit of guest {number}: {wrong[:5]}")
            print(f"{count} guests: {ram >> 10} MiB of guest RAM in memory after {seconds:.0f} s, the process {total >> 10} MiB; "
                  f"{sums['shared']} pages in {sums['frames']} shared frames, {sums['resident']} pages of their own, {sums['breaks']} breaks")
        finally:
            child.terminate()
            child.wait()
        return ram, total

    def costs(self, count):
        first, first_total = self.idle(1)
        ram, total = self.idle(count)
        each, each_total = ((now - before) / (count - 1) for now, before in ((ram, first), (total, first_total)))
        print(f"each further guest: {each / 1024:.1f} MiB of guest RAM, {each / first:.1%} of the first one's {first / 1024:.1f}; "
              f"with code and tables {each_total / 1024:.1f} MiB, {each_total / first_total:.1%} of {first_total / 1024:.1f}")
        if each > AT_MOST * first and not os.environ.get("UMBRA_SHARED_KASLR"):
            self.complain(f"each further guest costs {each / first:.1%} of the first")

    def one_without_room(self):
        """A guest whose swap folder fills up, between two that go on."""
        small = f"{self.work}/small"
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], capture_output=True, check=False).returncode != 0:
            print("no small file system can be mounted here: left out")
            return
        try:
            tight = f'[host-memory]\nlimit = "24M"\nswap-dir = "{small}"\n[expect]\nend = "swap-failed"\n'
            files = [self.machine(0, "sleep,1"), self.machine(1, "sleep,100000", tight), self.machine(2, "sleep,1")]
            child = self.batch(files)
            status = child.wait(timeout=600)
            with open(f"{self.work}/report.json", encoding="utf-8") as file:
                cases = [case for suite in json.load(file)["suites"] for case in suite["cases"]]
            ends = [case["run"]["end"] for case in cases]
            logs = [name for name in sorted(os.listdir(f"{self.work}/logs")) if name.endswith("guest-1.log")]
            with open(f"{self.work}/logs/{logs[0]}", encoding="utf-8") as file:
                sentence = next((line for line in file if "swap file has no room" in line), None)
            print(f"one without room among three: {ends}, status {status}: {sentence and sentence.strip()}")
            if ends != ["powered-off", "swap-failed", "powered-off"] or status != 0 or not sentence:
                self.complain(f"a full disk: {ends}, {status}, {sentence}")
        finally:
            subprocess.run(["umount", small], check=False)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    bench = Bench(*(sys.argv[1:] + ["cloud"])[:3])
    bench.costs(int(os.environ.get("UMBRA_SHARED", "10")))
    bench.one_without_room()
    if bench.wrong:
        sys.exit("shared.py: " + "; ".join(bench.wrong))


main()
