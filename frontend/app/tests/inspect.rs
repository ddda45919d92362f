//! `umbra inspect`: a fixed boot as a golden file, a running machine by its control socket, maps, and the event trace.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};
use support::{Folder, command, text, umbra};

/// The guest in long mode with tables of its own; on the virtual clock.
const DEMO: [&str; 9] =
    ["--bios", "roms:paging_long", "--headless", "--serial", "none", "--console", "none", "--clock", "virtual"];

/// A machine that waits for keys, with a control socket.
struct Running(Child);

impl Running {
    fn start(folder: &Path) -> Running {
        let words =
            ["run", "--bios", "roms:vga", "--headless", "--serial", "none", "--no-exit-port", "--control", "socket"];
        let words = [&words[..], &["--timeout", "100s", "--tablet", "on", "--trace-events", "events.json"]].concat();
        let child = command(folder, &words).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while !folder.join("socket").exists() {
            assert!(Instant::now() < end, "no socket");
            std::thread::sleep(Duration::from_millis(10));
        }
        Running(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// What guest, monitor and host say of four addresses after a fixed boot. `UMBRA_BLESS=1` writes the file anew.
#[test]
fn a_fixed_boot_looks_as_it_did() {
    let folder = Folder::new("inspect-golden");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inspect/addresses.json");
    let mut engines = vec!["interp"];
    if cfg!(not(portable)) {
        engines.push("jit");
    }
    for engine in engines {
        let rest = ["--engine", engine, "--at", "0x8000,0x9000,0x100000,0xb8000", "--json", "--on-reset", "exit"];
        let output = umbra(&folder.0, &[&["inspect", "address"], &DEMO[..], &rest].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let seen = text(&output.stdout);
        if std::env::var_os("UMBRA_BLESS").is_some() {
            std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
            std::fs::write(&golden, &seen).unwrap();
        }
        assert_eq!(seen, std::fs::read_to_string(&golden).unwrap(), "{engine}");
    }
}

#[test]
fn a_running_machine_is_looked_at_and_goes_on() {
    let folder = Folder::new("inspect-live");
    let path = &folder.0;
    let mut machine = Running::start(path);
    let ask = |words: &[&str]| umbra(path, &[&["inspect"], words, &["--connect", "socket"]].concat());
    // It may be asked before it has run at all.
    let deadline = Instant::now() + Duration::from_secs(30);
    let heat = loop {
        let heat = ask(&["heat", "--json", "--output", "map.png"]);
        assert_eq!(heat.status.code(), Some(0), "{}", text(&heat.stderr));
        let heat = json(&heat.stdout);
        if heat["owners"]["data"]["in_use"].as_u64() > Some(0) || Instant::now() > deadline {
            break heat;
        }
    };
    let owners = heat["owners"].as_object().unwrap().values();
    let pages: u64 =
        owners.map(|owner| owner["in_use"].as_u64().unwrap() + owner["not_in_use"].as_u64().unwrap()).sum();
    assert_eq!(Some(pages), heat["pages"].as_u64());
    assert!(heat["owners"]["data"]["in_use"].as_u64() > Some(0), "{heat}");
    let png = std::fs::read(path.join("map.png")).unwrap();
    assert_eq!(&png[1..4], b"PNG");
    let audit = ask(&["audit"]);
    assert_eq!(audit.status.code(), Some(0));
    assert!(text(&audit.stdout).contains("all equal"), "{}", text(&audit.stdout));
    let first = json(&ask(&["registers", "--json"]).stdout);
    assert!(first["vcpus"][0]["rip"].as_str().unwrap().starts_with("0x"), "{first}");
    for what in ["fault", "reclaim", "tlb", "roots"] {
        let seen = ask(&[what, "--json"]);
        assert!(json(&seen.stdout)["instructions"].as_u64() >= first["instructions"].as_u64(), "{what}");
    }
    // Again and again, until it is told to end; what is asked for without end is not given at once.
    let mut follower = command(path, &["inspect", "heat", "--connect", "socket", "--follow", "100ms", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let looks = lines.by_ref().map(Result::unwrap).filter(|line| line == "}").take(3).count();
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(looks, 3);
    let drawn = ask(&["heat", "--follow", "0ms", "--json", "--output", "/no/such/folder/map.png"]);
    assert_eq!(drawn.status.code(), Some(4), "the first look fails, and it ends");
    let mut huge = std::os::unix::net::UnixStream::connect(path.join("socket")).unwrap();
    std::io::Write::write_all(
        &mut huge,
        b"{\"what\":\"heat\",\"again\":true,\"blocks\":[1000000000000,18446744073709551615]}\n",
    )
    .unwrap();
    reply_of(&mut huge, "framebuffer");
    let bad = ask(&["heat", "--output", "/no/such/folder/map.svg"]);
    assert_eq!(bad.status.code(), Some(4));
    assert!(text(&bad.stderr).contains("; try "), "{}", text(&bad.stderr));
    // Whoever says what nobody understands gets a sentence, and whoever says nothing harms nobody.
    let mute = std::os::unix::net::UnixStream::connect(path.join("socket")).unwrap();
    let mut rude = std::os::unix::net::UnixStream::connect(path.join("socket")).unwrap();
    std::io::Write::write_all(&mut rude, b"{\"what\":\"everything\"}\n").unwrap();
    reply_of(&mut rude, "there is nothing called");
    // The socket is one machine's, and nobody else's to read.
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.join("socket").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let another = [&["run"], &DEMO[..], &["--on-reset", "exit", "--control", "socket"]].concat();
    let second = umbra(path, &another);
    assert!(text(&second.stderr).contains("another machine answers there"), "{}", text(&second.stderr));
    assert!(machine.0.try_wait().unwrap().is_none(), "it runs on");
    drop(mute);
    drop(machine);
    let gone = ask(&["heat"]);
    assert_eq!(gone.status.code(), Some(4));
    assert!(text(&gone.stderr).contains("; try "), "{}", text(&gone.stderr));
    // What a killed machine left behind is in nobody's way.
    let next = umbra(path, &another);
    assert!(!text(&next.stderr).contains("--control"), "{}", text(&next.stderr));
    assert!(!path.join("socket").exists());
}

fn reply_of(stream: &mut std::os::unix::net::UnixStream, expected: &str) {
    let mut reply = String::new();
    std::io::Read::read_to_string(stream, &mut reply).unwrap();
    assert!(reply.contains(expected), "{reply}");
}

/// The checks that failed last in a suite of page faults, the entries that refused, and their writers: the same in both engines.
#[test]
fn faults_are_told_with_entry_and_writer() {
    let folder = Folder::new("inspect-faults");
    let engines: &[&str] = if cfg!(portable) { &["interp"] } else { &["interp", "jit"] };
    let seen: Vec<Value> = (engines.iter())
        .map(|engine| {
            let rest = ["--engine", engine, "--json", "--on-reset", "exit"];
            json(&umbra(&folder.0, &[&["inspect", "fault"], &DEMO[..], &rest].concat()).stdout)
        })
        .collect();
    let exceptions = seen[0]["exceptions"].as_array().unwrap();
    assert!(seen.iter().all(|one| one["exceptions"] == seen[0]["exceptions"]), "{:#}", seen[0]);
    let known = exceptions.iter().filter(|met| {
        let walk = &met["evidence"]["Walk"];
        let by = walk["by"].as_u64().unwrap_or(0) as usize;
        met["check"] == "Walk" && !walk["check"].is_null() && walk["entries"][by][1][0]["Vcpu"][1].as_u64() > Some(0)
    });
    assert!(known.count() > 0, "{:#}", seen[0]);
}

/// A guest cannot tell that somebody looks.
#[test]
fn a_machine_that_is_looked_at_comes_to_the_same() {
    let folder = Folder::new("inspect-same");
    let engines: &[&str] = if cfg!(portable) { &["interp"] } else { &["interp", "jit"] };
    let end = |rest: &[&str]| {
        let words = [&["run"], &DEMO[..], &["--json", "--on-reset", "exit"], rest].concat();
        let output = umbra(&folder.0, &words);
        let said = text(&output.stdout) + &text(&output.stderr);
        let summary = json(said.lines().rfind(|line| line.starts_with('{')).unwrap().as_bytes());
        assert!(summary["descriptors"][0]["fills"].as_u64() > Some(0), "{summary}");
        (summary["state_hash"].clone(), summary["retired"].clone())
    };
    for engine in engines {
        let closed = end(&["--engine", engine]);
        assert!(!closed.0.is_null());
        assert_eq!(end(&["--engine", engine, "--control", "looked-at"]), closed, "{engine}");
    }
}

#[test]
fn events_become_a_trace() {
    let folder = Folder::new("inspect-events");
    let rest = ["--on-reset", "exit", "--trace-events", "events.json"];
    let output = umbra(&folder.0, &[&["run"], &DEMO[..], &rest].concat());
    assert!(!text(&output.stderr).contains("events.json"), "{}", text(&output.stderr));
    let trace = json(&std::fs::read(folder.0.join("events.json")).unwrap());
    let events = trace["traceEvents"].as_array().unwrap();
    for name in ["root made", "root met", "hidden(not yet shadowed)", "tracked store", "guest-true"] {
        let found = events.iter().find(|event| event["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no event {name}"));
        assert!(found["ts"].as_f64() >= Some(0.0) && found["dur"].as_f64() >= Some(0.0), "{found}");
    }
}
