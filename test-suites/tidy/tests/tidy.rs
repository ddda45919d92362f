//! The rules of the tree that no compiler lint holds, each a plain test that names every file and line that breaks it.

use std::collections::BTreeMap;
use umbra_tidy::{files, has_word, split, top};

/// No file may be longer.
const HARD_STOP: usize = 800;
/// Files beyond this are listed with `--nocapture`, as candidates to be split.
const TYPICAL: usize = 450;

/// Where `unsafe` may stand, and why it must. A folder ends with a slash.
const UNSAFE_PLACES: &[(&str, &str)] = &[
    ("mmu/src/host.rs", "system calls that map, protect and advise on guest RAM"),
    ("mmu/src/frames.rs", "the frame pool gives out pointers into guest RAM"),
    ("mmu/src/ram.rs", "loads and stores of guest RAM, which other vCPUs write meanwhile: no reference may exist"),
    ("mmu/src/tlb.rs", "a TLB hit is a load through a host pointer without a call (1.1 ns)"),
    ("mmu/src/vcpu.rs", "the inline hit path of loads and stores"),
    ("mmu/src/monitor/", "monitor tables are plain words that emitted code reads"),
    ("cpu/src/cache/", "blocks are kept as raw memory: code arena, chains, eviction"),
    ("cpu/src/emit/", "emitted code is called, and its helpers are extern functions"),
    ("cpu/src/exec/", "the interpreter's dispatch, and the thunks that run one host instruction"),
    ("cpu/src/vector/", "native forms: the host's own vector instructions"),
    ("cpu/src/host", "host instructions, system calls and signals of the processor crate"),
    ("frontend/machine/src/host", "signals and clocks of the host"),
    ("frontend/app/src/host", "the raw terminal and its restore on a signal"),
    ("test-suites/oracle/", "runs guest instructions natively in a sandboxed child"),
    ("test-suites/benches/", "runs guest instructions natively to compare with"),
];

/// What each crate may depend on among ours (DESIGN: the arrows are one-way).
const ARROWS: &[(&str, &[&str])] = &[
    ("umbra-mmu", &[]),
    ("umbra-cpu", &["umbra-mmu"]),
    ("umbra-devices", &["umbra-mmu"]),
    ("umbra-roms", &[]),
    ("umbra-machine", &["umbra-cpu", "umbra-mmu", "umbra-devices", "umbra-roms"]),
    ("umbra-conformance", &["umbra-machine", "umbra-cpu", "umbra-mmu"]),
    ("umbra-window", &["umbra-machine"]),
    ("umbra", &["umbra-machine", "umbra-conformance", "umbra-window"]),
];

/// Crates that only some places may name: (crate, as written in code, places).
const NAMED_ONLY_IN: &[(&str, &str, &[&str])] = &[
    ("iced-x86", "iced_x86", &["cpu/src/decode.rs", "cpu/src/decode/", "test-suites/oracle/"]),
    ("dynasmrt", "dynasmrt", &["cpu/src/emit/", "cpu/src/cache/"]),
    ("dynasm", "dynasm", &["cpu/src/emit/", "cpu/src/cache/"]),
];

/// Words that the glossary replaces. Compared without regard to case, in code, comments and strings.
const GLOSSARY: &[(&str, &str)] = &[
    ("virtual address", "linear address"),
    ("shadow page fault", "shadow miss"),
    ("shadow fault", "shadow miss"),
    ("translation block", "block"),
    ("hflags", "mode bits"),
];

/// Marks of unfinished work.
const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX", "todo", "unimplemented"];

/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["common", "util", "utils", "base", "misc"];

/// Files that have such a name for a reason.
const NAMED_BY_THE_MANUAL: &[(&str, &str)] =
    &[("devices/src/lapic/base.rs", "the register IA32_APIC_BASE (SDM vol. 3, 11.4.4)")];

/// This crate spells out what it forbids.
const SELF: &str = "test-suites/tidy/";

/// Fails with the list of everything that breaks a rule.
#[track_caller]
fn check(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

fn allowed(path: &str, places: impl IntoIterator<Item = &'static str>) -> bool {
    places.into_iter().any(|p| path.starts_with(p))
}

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for file in files("rs") {
        let lines = file.text.lines().count();
        if lines > HARD_STOP {
            broken.push(format!("{} has {lines} lines", file.path));
        } else if lines > TYPICAL {
            println!("long: {} has {lines} lines", file.path);
        }
    }
    check("no source file is longer than 800 lines", broken);
}

#[test]
fn files_open_with_what_they_are() {
    let opens = |text: &str| text.lines().take(3).any(|l| l.starts_with("//!"));
    let broken = files("rs").into_iter().filter(|f| !opens(&f.text)).map(|f| f.path).collect();
    check("each file opens with //!: what it models, what it leaves out, who calls it", broken);
}

/// (name, dependencies of ours in any section, all dependencies) of every crate.
fn crates() -> BTreeMap<String, (String, Vec<String>)> {
    let mut crates = BTreeMap::new();
    for file in files("toml").iter().filter(|f| f.path.ends_with("Cargo.toml")) {
        let Ok(manifest) = file.text.parse::<toml::Table>() else { panic!("{} is no TOML", file.path) };
        let Some(name) = manifest.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str()) else { continue };
        let mut sections = vec![&manifest];
        if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
            sections.extend(targets.values().filter_map(toml::Value::as_table));
        }
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = sections.iter().flat_map(|s| kinds.iter().filter_map(|k| s.get(*k)?.as_table()));
        let dependencies = tables.flat_map(|t| t.keys().cloned()).collect();
        crates.insert(name.to_owned(), (file.path.clone(), dependencies));
    }
    crates
}

#[test]
fn arrows_are_one_way() {
    let mut broken = Vec::new();
    for (name, (path, dependencies)) in crates() {
        let ours = dependencies.iter().filter(|d| d.starts_with("umbra"));
        match ARROWS.iter().find(|(n, _)| *n == name) {
            Some((_, may)) => {
                let wrong = ours.filter(|d| !may.contains(&d.as_str()));
                broken.extend(wrong.map(|d| format!("{path}: {name} → {d}")));
            }
            None if path.starts_with("test-suites/") || path.contains("fuzz/") => {}
            None => broken.push(format!("{path}: {name} has no row in the table of arrows")),
        }
    }
    check("crates depend on each other only along the arrows", broken);
}

#[test]
fn some_crates_are_named_in_one_place() {
    let mut broken = Vec::new();
    for file in files("rs").iter().filter(|f| !f.path.starts_with(SELF)) {
        for (number, line) in split(&file.text).iter().enumerate() {
            for (_, word, places) in NAMED_ONLY_IN {
                if has_word(&line.code, word) && !allowed(&file.path, places.iter().copied()) {
                    broken.push(format!("{}:{}: {word}", file.path, number + 1));
                }
            }
        }
    }
    for (name, (path, dependencies)) in crates() {
        for (package, _, places) in NAMED_ONLY_IN {
            let may = name == "umbra-cpu" || allowed(&path, places.iter().copied());
            if !may && dependencies.iter().any(|d| d == package) {
                broken.push(format!("{path}: depends on {package}"));
            }
        }
    }
    check("the decoder and the assembler are named in one place only", broken);
}

#[test]
fn unsafe_has_its_places_and_reasons() {
    let mut broken = Vec::new();
    for file in files("rs") {
        let lines = split(&file.text);
        for (number, line) in lines.iter().enumerate() {
            if !has_word(&line.code, "unsafe") {
                continue;
            }
            let at = format!("{}:{}", file.path, number + 1);
            if !allowed(&file.path, UNSAFE_PLACES.iter().map(|(p, _)| *p)) {
                broken.push(format!("{at}: unsafe outside its places"));
                continue;
            }
            let opens = line.code.split("unsafe").nth(1).is_some_and(|after| {
                let after = after.trim_start();
                after.is_empty() || after.starts_with('{') || after.starts_with("impl")
            });
            if opens && !explained(&lines, number) {
                broken.push(format!("{at}: no SAFETY comment above"));
            }
        }
    }
    check("unsafe stands in few places, and each block says why it holds", broken);
}

/// Whether a SAFETY comment stands on the line, in the three lines above or in the comment that ends there.
fn explained(lines: &[umbra_tidy::Line], number: usize) -> bool {
    let says = |n: usize| lines[n].comment.contains("SAFETY");
    if (number.saturating_sub(3)..=number).any(says) {
        return true;
    }
    let above = (0..number).rev().take_while(|n| lines[*n].code.trim().is_empty() && !lines[*n].comment.is_empty());
    above.into_iter().any(says)
}

#[test]
fn nothing_is_unfinished() {
    let mut broken = Vec::new();
    for file in files("rs").iter().filter(|f| !f.path.starts_with(SELF)) {
        for (number, line) in split(&file.text).iter().enumerate() {
            let macros = |w: &str| line.code.contains(&format!("{w}!"));
            let found = UNFINISHED
                .iter()
                .any(|w| if w.chars().all(char::is_uppercase) { has_word(&line.comment, w) } else { macros(w) });
            if found || line.code.trim_start().starts_with("#[ignore]") {
                broken.push(format!("{}:{}: {}{}", file.path, number + 1, line.code.trim(), line.comment));
            }
        }
    }
    check("nothing is left unfinished or switched off without a reason", broken);
}

#[test]
fn names_are_the_glossary_s() {
    let mut broken = Vec::new();
    for file in files("rs").iter().chain(&files("md")).filter(|f| !f.path.starts_with(SELF)) {
        for (number, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            let wrong = GLOSSARY.iter().filter(|(word, _)| lower.contains(word));
            broken.extend(wrong.map(|(word, say)| format!("{}:{}: \"{word}\", say \"{say}\"", file.path, number + 1)));
        }
    }
    check("names are the glossary's", broken);
}

#[test]
fn no_name_says_nothing() {
    let says_nothing = |path: &str| path.split('/').any(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs")));
    let excused = |path: &str| NAMED_BY_THE_MANUAL.iter().any(|(p, _)| *p == path);
    let broken = files("rs").into_iter().map(|f| f.path).filter(|p| says_nothing(p) && !excused(p)).collect();
    check("no crate or module is called common, util or base", broken);
}

/// Each path in the README's code map exists: the first word of each line of its code blocks, and what stands in backquotes.
#[test]
fn the_code_map_is_true() {
    let Ok(readme) = std::fs::read_to_string(top().join("README.md")) else { return };
    let mut broken = Vec::new();
    let mut inside = false;
    for (number, line) in readme.lines().enumerate() {
        if line.starts_with('#') {
            inside = line.to_lowercase().contains("code map");
            continue;
        }
        if !inside {
            continue;
        }
        let quoted = line.split('`').skip(1).step_by(2);
        let first = line.split_whitespace().take(1);
        for path in quoted.chain(first).filter(|p| is_path(p)) {
            if !top().join(path).exists() {
                broken.push(format!("README.md:{}: {path}", number + 1));
            }
        }
    }
    check("every path in the README's code map exists", broken);
}

fn is_path(word: &str) -> bool {
    let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let top_level = word.split('/').next().is_some_and(|first| top().join(first).is_dir() && !first.is_empty());
    plain && word.contains('/') && !word.starts_with('/') && top_level
}

#[test]
fn expected_failures_have_reasons() {
    let mut broken = Vec::new();
    for file in files("txt").iter().filter(|f| f.path.contains("expected")) {
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim();
            let entry = !line.is_empty() && !line.starts_with('#');
            if entry && line.split_once(" = ").is_none_or(|(_, reason)| reason.trim().len() < 10) {
                broken.push(format!("{}:{}: {line}", file.path, number + 1));
            }
        }
    }
    check("each expected failure has a reason in words", broken);
}
