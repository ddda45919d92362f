#!/usr/bin/env python3
"""inspector-cost.py UMBRA DIR [ROUNDS]

What an open inspector costs: the processor's cycles that Umbra takes for a boot of the kernel that `umbra bench --guests DIR` brought
to DIR and some of guestbench: headless, with --control and somebody who asks four times a second; and on a terminal, with the panel open
on each of its pages. Each beside one whose inspector is closed, at the same time, each on a processor of its own, and again with the
processors exchanged. Medians of ROUNDS (5) such pairs of pairs, and their mean with twice its standard error: on a crowded host cycles
differ by a tenth from one to the next, and instructions by a hundredth. Fails if the median is more than 5 %, or if all that the error
leaves open is; says so where it leaves open whether it is: then more rounds may tell. Where `perf` cannot count, CPU seconds are all
there is.
"""
import json
import math
import os
import pty
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import fcntl

WORDS = "-m,-s,0.5,os.pipe,os.fork,os.mmap,mem.pages,int.sieve"
MOST = 5.0
EVENTS = "instructions,cycles"
PAGES = {"address": b"", "faults": b"\t", "heat": b"\t\t"}


def can_count():
    """Whether `perf` can count here."""
    try:
        counted = subprocess.run(["perf", "stat", "-x,", "-e", EVENTS, "true"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return counted.stderr.split(",")[0].isdigit()


COUNTS = can_count()


def command(umbra, folder, options, counts):
    count = ["perf", "stat", "-x,", "-e", EVENTS, "-o", counts, "--"] if COUNTS else []
    return [*count, umbra, "run", "-m", "256M", "--timeout", "600s", "--kernel", f"{folder}/kernels/vmlinuz-cloud",
            "--initrd", f"{folder}/img/initrd64.cpio.gz", "--append", f"console=ttyS0 quiet panic=-1 gb={WORDS}", *options]


def ended(process, name, log, counts):
    """The 10⁹ instructions and cycles, or the CPU seconds, of a process that has come to its good end."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(log, "rb") as file:
        text = file.read()
    if process.returncode != 0 or b"ALL-DONE" not in text:
        sys.exit(f"inspector-cost.py: {name}: status {process.returncode}: {text[-500:].decode(errors='replace')}")
    if not COUNTS:
        return [used.ru_utime + used.ru_stime]
    with open(counts, encoding="utf-8") as file:
        return [int(line.split(",")[0]) / 1e9 for line in file if line[0].isdigit()]


def ask(path, questions, stop, answers):
    """Asks four times a second, one thing after another."""
    while not stop.wait(0.25):
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(30)
                peer.connect(path)
                peer.sendall(json.dumps(questions[len(answers) % len(questions)]).encode() + b"\n")
                answer = b""
                while part := peer.recv(1 << 16):
                    answer += part
                answers.append("Ok" in json.loads(answer or b"{}"))
        except OSError:
            continue


def start(words, cpu, **streams):
    """Starts a process on one processor."""
    return subprocess.Popen(["taskset", "-c", str(cpu), *words], **streams)


def headless(umbra, folder, work, cpu, is_asked):
    log, path, counts = (os.path.join(work, name) for name in ("log", "socket", "counts"))
    options = ["--headless"] + (["--control", path] if is_asked else [])
    with open(log, "wb") as out:
        process = start(command(umbra, folder, options, counts), cpu, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    stop, answers = threading.Event(), []
    kinds = [{"what": "roots"}, {"what": "fault"}, {"what": "address", "at": [0xFFFFFFFF81000000]}, {"what": "heat"}]
    asker = threading.Thread(target=ask, args=(path, kinds, stop, answers))
    if is_asked:
        asker.start()
    cost = ended(process, "headless", log, counts)
    stop.set()
    if is_asked:
        asker.join()
        if sum(answers) < 8:
            sys.exit(f"inspector-cost.py: {sum(answers)} answers are too few")
    return cost


def on_terminal(umbra, folder, work, cpu, keys):
    """As headless, but on a pseudo-terminal of 100 × 50; `keys` open the panel and turn its pages."""
    log, counts = os.path.join(work, "log"), os.path.join(work, "counts")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    options = ["--display", "terminal", "--serial", f"file:{log}"]
    words = command(umbra, folder, options, counts)
    process = start(words, cpu, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL)
    os.close(slave)
    seen = bytearray()

    def drain():
        try:
            while part := os.read(master, 1 << 16):
                seen.extend(part)
        except OSError:
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    time.sleep(0.5)
    if keys is not None:
        os.write(master, b"\x01i" + keys)
    cost = ended(process, "terminal", log, counts)
    reader.join(5)
    os.close(master)
    if (keys is not None) != (b"inspector" in seen):
        sys.exit("inspector-cost.py: the panel is not as it should be")
    return cost


def beside(closed, opened):
    """What an open inspector costs: how many times what a closed one takes, of each event."""
    logs = []
    for cpus in ((0, 1), (1, 0)):
        taken = [None, None]

        def one(number, run, cpu, taken=taken):
            try:
                with tempfile.TemporaryDirectory() as work:
                    taken[number] = run(work, cpu)
            except SystemExit as failed:  # which ends a thread without a word
                print(failed, file=sys.stderr)

        runs = [threading.Thread(target=one, args=(n, run, cpu)) for n, (run, cpu) in enumerate(zip((closed, opened), cpus))]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        if None in taken:
            sys.exit("inspector-cost.py: a run has failed, see above")
        logs.append([math.log(b / a) for a, b in zip(*taken)])
    return [math.exp(statistics.mean(two)) for two in zip(*logs)]


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    if not {0, 1} <= os.sched_getaffinity(0):
        sys.exit("inspector-cost.py: needs processors 0 and 1")
    umbra, folder = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) == 4 else 5
    kinds = {"asked 4 times a second": [lambda *place, asked=asked: headless(umbra, folder, *place, asked) for asked in (False, True)]}
    for page, keys in PAGES.items():
        kinds[f"terminal, {page}"] = [lambda *place, keys=keys: on_terminal(umbra, folder, *place, keys) for keys in (None, keys)]
    ratios = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, (closed, opened) in kinds.items():
            ratios[name].append(beside(closed, opened))
    wrong = []
    for name, all_ in ratios.items():
        units = ("instructions", "cycles") if COUNTS else ("CPU time",)
        for number, (unit, each) in enumerate(zip(units, zip(*all_))):
            costs = [100 * (ratio - 1) for ratio in each]
            cost, mean = statistics.median(costs), statistics.mean(costs)
            error = 2 * statistics.stdev(costs) / math.sqrt(len(costs)) if len(costs) > 1 else math.inf
            label, singly = name if number == 0 else "", " ".join(f"{one:+.1f}" for one in costs)
            print(f"{label:<26}{unit:<14}{cost:+8.1f} %   mean {mean:+5.1f} ± {error:4.1f}   {singly}")
            if cost > MOST or mean - error > MOST:
                wrong.append(f"{name} costs {max(cost, mean):.1f} % in {unit}")
            elif mean + error > MOST:
                print(f"{'':<26}{len(costs)} rounds leave open whether its mean is more than {MOST} %")
    if wrong:
        sys.exit("inspector-cost.py: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
