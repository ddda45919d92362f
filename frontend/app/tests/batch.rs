//! `umbra batch` with fifty machines, of which some hang, crash (guest or process), have a bad image, use too much or too long:
//! each gets its own status, in the table, in JSON and in JUnit, and none takes another along.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Folder, HANG, POWER_OFF, SLEEP, TRIPLE_FAULT, command, exit, kernel, say, text, umbra};

/// (name, kernel's code, what the file says beside its kernel, how it ends, its status, whether that is as it should be)
type Machine = (String, Vec<u8>, String, &'static str, Option<i64>, bool);

fn machines() -> Vec<Machine> {
    // Touches 200 MiB, a page at a time: MOV EDI, 200000h; loop: MOV [EDI], EDI; ADD EDI, 4096; CMP EDI, end; JB loop; JMP $.
    let mut hog =
        vec![0xBF, 0, 0, 0x20, 0, 0x89, 0x3F, 0x81, 0xC7, 0, 0x10, 0, 0, 0x81, 0xFF, 0, 0, 0xA0, 0x0C, 0x72, 0xF0];
    hog.extend(HANG);
    // The keyboard controller's reset: MOV AL, FEh; OUT 64h, AL; JMP $.
    let reset = vec![0xB0, 0xFE, 0xE6, 0x64, 0xEB, 0xFE];
    let one = |name: &str, code: &[u8], file: &str, end, status, good| {
        (name.to_owned(), code.to_vec(), file.to_owned(), end, Some(status), good)
    };
    let mut all = vec![
        one("hang", &HANG, "[run]\ninstructions = 3000000\n", "instruction-limit", 124, false),
        one(
            "hang-wanted",
            &HANG,
            "[run]\ninstructions = 1000\n[expect]\nend = \"instruction-limit\"\n",
            "instruction-limit",
            124,
            true,
        ),
        one("triple-fault", &TRIPLE_FAULT, "", "crashed", 100, false),
        one("triple-fault-wanted", &TRIPLE_FAULT, "[expect]\nend = \"crashed\"\n", "crashed", 100, true),
        one(
            "triple-fault-reboot",
            &TRIPLE_FAULT,
            "[run]\non-crash = \"reboot\"\ninstructions = 300\n",
            "instruction-limit",
            124,
            false,
        ),
        one("timed-out", &HANG, "clock = \"real\"\n[run]\ntimeout = \"1s\"\n", "timed-out", 124, false),
        one("asleep", &SLEEP, "", "asleep", 124, false),
        one("reset", &reset, "[run]\non-reset = \"exit\"\n", "reset", 104, false),
        one("exit-3", &exit(3), "", "guest-exit", 7, false),
        one("exit-3-wanted", &exit(3), "[expect]\nstatus = 7\n", "guest-exit", 7, true),
        one(
            "known-to-fail",
            &exit(3),
            "[expect]\nfails = \"the guest leaves with 3 on purpose\"\n",
            "guest-exit",
            7,
            true,
        ),
        one(
            "passes-against-the-list",
            &POWER_OFF,
            "[expect]\nfails = \"it was thought to fail\"\n",
            "powered-off",
            0,
            false,
        ),
        one("silent", &POWER_OFF, "[expect]\nserial = [\"hello\"]\n", "powered-off", 0, false),
        (
            "hog".into(),
            hog,
            "memory = \"256M\"\n[run]\nprocess-memory = \"100M\"\n".into(),
            "out-of-memory",
            None,
            false,
        ),
        ("victim".into(), HANG.to_vec(), String::new(), "process-crashed", None, false),
    ];
    for number in 0..32 {
        let code = [say(&format!("guest {number}\r\n")), POWER_OFF.to_vec()].concat();
        let file = format!("[expect]\nserial = [\"^guest {number}$\"]\nnever = [\"guest {}$\"]\n", number + 100);
        all.push((format!("good-{number}"), code, file, "powered-off", Some(0), true));
    }
    all
}

/// The process of the machine with this file, among the children of a batch.
fn process_of(name: &str) -> Option<u32> {
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let process = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = words.split(|b| *b == 0).collect();
        let runs = words.get(1) == Some(&&b"run"[..]);
        (runs && words.iter().any(|word| word.ends_with(name.as_bytes()))).then_some(process)
    })
}

#[test]
fn fifty_machines() {
    let folder = Folder::new("batch");
    let machines = machines();
    let mut words: Vec<String> =
        ["batch", "--jobs", "3", "--timeout", "100s", "--junit", "j.xml", "--json=r.json", "--html", "r.html"]
            .map(str::to_owned)
            .to_vec();
    words.extend(["--logs", "logs"].map(str::to_owned));
    for (name, code, file, ..) in &machines {
        folder.write(&format!("{name}.kernel"), kernel(code));
        let (top, tables) = file.split_at(file.find('[').unwrap_or(file.len()));
        let memory = if top.contains("memory") { "" } else { "memory = \"16M\"\n" };
        folder.write(&format!("{name}.toml"), format!("{memory}{top}[boot]\nkernel = \"{name}.kernel\"\n{tables}"));
        words.push(format!("{name}.toml"));
    }
    // Three that are refused: no kernel in the image, no image, no machine file.
    folder.write("text.kernel", "just some words\n");
    folder.write("bad-image.toml", "[boot]\nkernel = \"text.kernel\"\n");
    folder.write("no-image.toml", "[boot]\nkernel = \"gone.kernel\"\n");
    folder.write("bad-file.toml", "memory = \"16M\"\n[boot]\nkernel = 5\n");
    words.extend(["bad-image.toml", "no-image.toml", "bad-file.toml"].map(str::to_owned));
    assert_eq!(machines.len() + 3, 50);

    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let batch = command(&folder.0, &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One process dies of a signal while its guest runs.
    let patience = Instant::now() + Duration::from_secs(90);
    let victim = loop {
        if let Some(process) = process_of("victim.toml") {
            break process;
        }
        assert!(Instant::now() < patience, "the victim never came to run");
        std::thread::sleep(Duration::from_millis(5));
    };
    std::thread::sleep(Duration::from_millis(100));
    // The shell has this command of its own; `kill` as a program may not be there.
    assert!(Command::new("sh").args(["-c", &format!("kill -ABRT {victim}")]).status().unwrap().success());
    let output = batch.wait_with_output().unwrap();
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{table}\n{said}");

    let report: serde_json::Value = serde_json::from_str(&folder.read("r.json")).unwrap();
    let cases = report["suites"][0]["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 50);
    let case = |name: &str| cases.iter().find(|case| case["name"] == name).unwrap();
    for (name, _, _, end, status, good) in &machines {
        let case = case(name);
        assert_eq!(case["run"]["end"], *end, "{name}: {case}");
        assert_eq!(case["run"]["status"].as_i64(), *status, "{name}: {case}");
        let outcome = case["outcome"].to_string();
        let is_good = outcome.starts_with("\"Passed") || outcome.starts_with("{\"ExpectedFailure");
        assert_eq!(is_good, *good, "{name}: {case}");
    }
    let sentences = [
        ("bad-image", "bad-image.toml: "),
        ("no-image", "gone.kernel: there is no such file"),
        ("file", "bad-file.toml:3: "),
    ];
    for (name, sentence) in sentences {
        let outcome = case(name)["outcome"]["Refused"]["sentence"].to_string();
        assert!(outcome.contains(sentence), "{name}: {outcome}");
    }
    let hang = case("hang")["outcome"]["Failed"].clone();
    assert!(hang["difference"].as_str().unwrap().contains("instruction-limit with status 124 at 10:100020"), "{hang}");

    let junit = folder.read("j.xml");
    let wrong = machines.iter().filter(|m| !m.5).count();
    for part in ["tests=\"50\"", &format!("failures=\"{wrong}\""), "errors=\"3\"", "the process crashed (SIGABRT)"] {
        assert!(junit.contains(part), "{part} in {junit}");
    }
    assert!(folder.read("r.html").contains("process-crashed"));
    assert!(folder.read("logs/batch-good-7.serial").contains("guest 7"));
    assert!(table.contains("36 of 50 machines did what they should"), "{table}");

    // The command that is printed repeats the run exactly.
    let repeat = hang["repeat"].as_str().unwrap().strip_prefix("umbra ").unwrap();
    let line = format!("{} {repeat} --json", env!("CARGO_BIN_EXE_umbra"));
    let again = || {
        let output = Command::new("sh").args(["-c", &line]).current_dir(&folder.0).output().unwrap();
        let said = text(&output.stderr);
        let summary: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        (summary["state_hash"].clone(), summary["retired"].clone())
    };
    let (hash, retired) = again();
    assert_eq!((again(), retired), ((hash, 3_000_000.into()), 3_000_000.into()));
}

/// The same machines in one process over one pool: each ends as it would alone, to the last instruction, and has its own log; what
/// only a process could do is refused.
#[test]
fn machines_in_one_process() {
    let folder = Folder::new("batch-share");
    let mut machines = machines();
    // The hog is limited by its process, the victim is killed with it: those need one of their own.
    machines.retain(|(name, ..)| name != "victim");
    let mut words: Vec<String> =
        ["batch", "--share", "--timeout", "100s", "--json=r.json", "--logs", "logs"].map(str::to_owned).to_vec();
    for (name, code, file, ..) in &machines {
        folder.write(&format!("{name}.kernel"), kernel(code));
        let (top, tables) = file.split_at(file.find('[').unwrap_or(file.len()));
        let memory = if top.contains("memory") { "" } else { "memory = \"16M\"\n" };
        folder.write(&format!("{name}.toml"), format!("{memory}{top}[boot]\nkernel = \"{name}.kernel\"\n{tables}"));
        words.push(format!("{name}.toml"));
    }
    folder.write("no-image.toml", "[boot]\nkernel = \"gone.kernel\"\n");
    folder.write("pinned.toml", "[boot]\nkernel = \"hang.kernel\"\n[host-memory]\npolicy = \"pinned\"\n");
    words.extend(["no-image.toml", "pinned.toml"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = umbra(&folder.0, &words);
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{table}\n{said}");
    assert!(said.contains("a crash of the process ends them all"), "{said}");
    let report: serde_json::Value = serde_json::from_str(&folder.read("r.json")).unwrap();
    let cases = report["suites"][0]["cases"].as_array().unwrap();
    let case = |name: &str| cases.iter().find(|case| case["name"] == name).unwrap();
    for (name, _, _, end, status, good) in machines.iter().filter(|(name, ..)| name != "hog") {
        let case = case(name);
        assert_eq!((&case["run"]["end"], case["run"]["status"].as_i64()), (&(*end).into(), *status), "{name}: {case}");
        let outcome = case["outcome"].to_string();
        let is_good = outcome.starts_with("\"Passed") || outcome.starts_with("{\"ExpectedFailure");
        assert_eq!(is_good, *good, "{name}: {case}");
    }
    for (name, sentence) in
        [("hog", "process-memory limits a process"), ("no-image", "gone.kernel: "), ("pinned", "leave out --share")]
    {
        let outcome = case(name)["outcome"].to_string();
        assert!(outcome.contains(sentence), "{name}: {outcome}");
    }
    for number in [0, 31] {
        assert_eq!(folder.read(&format!("logs/batch-good-{number}.serial")).trim(), format!("guest {number}"));
    }
    assert!(folder.read("logs/batch-triple-fault.log").contains("triple fault on vCPU 0"));
    // Alone it comes to the same state.
    let line =
        format!("{} run hang.toml --headless --clock virtual --console none --json", env!("CARGO_BIN_EXE_umbra"));
    let alone = Command::new("sh").args(["-c", &line]).current_dir(&folder.0).output().unwrap();
    let hash = |text: &str| text.split("\"state_hash\":\"").nth(1).unwrap()[..16].to_owned();
    assert_eq!(
        hash(&folder.read("logs/batch-hang.log")),
        hash(&format!("{}{}", text(&alone.stdout), text(&alone.stderr)))
    );
}

#[test]
fn a_batch_without_its_files_says_so() {
    let folder = Folder::new("batch-usage");
    folder.write("a.toml", "");
    let output = umbra(&folder.0, &["batch", "a.toml", "b.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("b.toml: there is no such file; try "));
}
