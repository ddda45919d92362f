#!/usr/bin/env python3
"""Builds suites: `build.py [NAME…] [--out DIR]`; explains a case: `build.py NAME --case N [DWORDS that the frame printed]`.

The images go beside this file. Needs nothing but Python; frame*.bin come from roms/build.sh.
"""

import argparse
import importlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import chips
import layout
from machine import Machine

SUITES = ("gates", "segments", "taskswitch", "paging", "decoding", "debugging", "virtual86", "longmode", "selfmod", "strings", "control", "xstate")
CHIPS = ("pic", "pit", "rtc", "lapic", "ioapic", "hpet")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=layout.HERE)
    parser.add_argument("--log", type=Path, help="explain each case that a run's output names")
    args = parser.parse_args()
    names = args.names or SUITES + CHIPS
    if args.log:
        for name in names:
            explain_suite(name, args.log)
        return
    # Each suite by itself: as many at once as there are processors.
    with ProcessPoolExecutor() as pool:
        for line in pool.map(build, names, [args.out] * len(names)):
            print(line)


def build(name, out):
    """Makes a suite's image; gives how many cases each family has."""
    suite = importlib.import_module(name)
    cases = list(suite.cases())
    if name in CHIPS:
        image = chips.image(suite.prologue(), suite.SETUP, cases)
    else:
        records = [getattr(suite, "Machine", Machine)(case).run() for case in cases]
        image = layout.image(suite.FRAME_IMAGE, cases, records)
    (out / f"{name}.bin").write_bytes(image)
    families = Counter(case.name for case in cases)
    return f"{name}: {len(cases)} cases; " + ", ".join(f"{k} {v}" for k, v in families.items())


def explain_suite(name, log):
    """Explains each case of a suite that a run's output names."""
    suite = importlib.import_module(name)
    cases = list(suite.cases())
    if name in CHIPS:
        chips.explain(cases, log)
        return
    records = [getattr(suite, "Machine", Machine)(case).run() for case in cases]
    explain(cases, records, log, getattr(suite, "NAMES", NAMES))


NAMES = "id eax ecx edx ebx esp ebp esi edi flags ds:ss fs:es ldt:gs dr7:tr cr0 cr2 dr6".split()


def fields(record, names):
    """A record as a dictionary."""
    out = dict(zip(names, record))
    out.update({f"[{at:x}]": value for at, value in zip(record[len(names) :: 2], record[len(names) + 1 :: 2])})
    return out


def explain(cases, records, log, names):
    """For each case in a log: where it differs from the model."""
    kinds, shown = Counter(), Counter()
    for line in log.read_text(errors="replace").splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != "case":
            continue
        if not all(len(word) == 8 for word in words[1:]):
            continue  # a line that the end of the run cut
        n, got = int(words[1], 16) - 1, fields([int(word, 16) for word in words[2:]], names)
        want, case = fields(records[n], names), cases[n]
        differing = [k for k in {**want, **got} if want.get(k) != got.get(k)]
        kind = (case.name, want["id"], got["id"], tuple(sorted(k for k in differing))[:4])
        kinds[kind] += 1
        if shown[kind] < 2:
            shown[kind] += 1
            print(f"case {n + 1} {case.name} code {case.mem[layout.CODE:layout.CODE+12].hex(' ')} begin {case.begin}")
            for k in differing:
                show = lambda v: "-" if v is None else f"{v:x}"
                print(f"    {k}: manual {show(want.get(k))}, run {show(got.get(k))}")
    for kind, count in kinds.most_common():
        print(count, kind)


if __name__ == "__main__":
    main()
