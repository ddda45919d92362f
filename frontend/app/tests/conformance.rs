//! `umbra test`: our own ROMs and kernels pass on our machine; a third party's folders run by options alone; whatever is
//! malformed gets one sentence with file and position; a crash of one case costs that case.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use support::{Folder, HANG, exit, kernel, say, text, umbra};

fn tree(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).to_string_lossy().into_owned()
}

fn report(folder: &Folder, name: &str) -> serde_json::Value {
    serde_json::from_str(&folder.read(name)).unwrap()
}

#[test]
fn our_roms_pass() {
    let folder = Folder::new("our-roms");
    // The images in the tree and those within the program are the same tests.
    let output = umbra(&folder.0, &["test", &tree("roms/tests"), "roms", "--json=r.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report = report(&folder, "r.json");
    for suite in [0, 1] {
        assert!(report["suites"][suite]["counts"]["passed"].as_u64().unwrap() >= 15, "{report}");
    }
}

#[test]
fn our_kernels_pass() {
    let folder = Folder::new("our-kernels");
    let kernels = tree("test-suites/kernels");
    let environment = format!("{kernels}/environment");
    let output = umbra(&folder.0, &["test", &kernels, "--env", &environment, "--json=r.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report = report(&folder, "r.json");
    let counts = &report["suites"][0]["counts"];
    assert_eq!((counts["passed"].as_u64(), counts["skipped"].as_u64()), (Some(1), Some(2)), "{report}");
    let reasons = report["suites"][0]["reasons"].to_string();
    assert!(reasons.contains("SKIP: the argument says so") && reasons.contains("-device"), "{reasons}");

    let file = format!("{kernels}/interface.flat");
    #[rustfmt::skip]
    let failures = [
        (&["--append", "fail"][..],                            "FAIL: the argument wants a failure"),
        (&["--append", "hang", "--instructions", "1M"],        "instruction-limit with status 124 at 10:"),
        (&["--append", "alpha beta"],                          "FAIL: there is one module"),
        (&["--append", "alpha", "--env", &environment],        "FAIL: the second argument is beta"),
    ];
    for (words, wanted) in failures {
        let output = umbra(&folder.0, &[&["test", &file], words].concat());
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted) && said.contains("repeat: umbra run --kernel"), "{wanted} in {said}");
    }
}

/// A ROM of 64 KiB that does this at its reset vector's target F000:0000.
fn rom(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0xF4; 0x1_0000];
    image[..code.len()].copy_from_slice(code);
    image[0xFFF0..0xFFF5].copy_from_slice(&[0xEA, 0, 0, 0, 0xF0]);
    image
}

/// 16-bit code that writes a value to port 190h, and text to port 402h.
fn progress(value: u8, letters: &str) -> Vec<u8> {
    let mut code = vec![0xBA, 0x90, 0x01, 0xB0, value, 0xEE, 0xBA, 0x02, 0x04];
    letters.bytes().for_each(|c| code.extend([0xB0, c, 0xEE]));
    code
}

#[test]
fn a_third_party_s_roms_report_by_their_own_ports() {
    let folder = Folder::new("roms");
    folder.write("suite/good.rom", rom(&[progress(1, "one\n"), progress(0xFF, "two\n"), vec![0xFA, 0xF4]].concat()));
    folder.write("suite/stuck.rom", rom(&[progress(1, "one\n"), HANG.to_vec()].concat()));
    folder.write("suite/notes.txt", "no test");
    let words =
        ["test", "suite", "--post-port", "0x190", "--expect", "0xff", "--text", "0x402", "--instructions", "100K"];
    let run = |more: &[&str]| {
        let output = umbra(&folder.0, &[&words, more].concat());
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (status, said) = run(&[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the report port holds 0x01 at the end, should be 0xff; instruction-limit"), "{said}");
    assert!(said.contains("suite/stuck") && said.contains("1 of       2 passed"), "{said}");
    // A listing is written on request, and compared from then on.
    let good = ["--filter", "suite/good"];
    assert_eq!(run(&[&good[..], &["--bless"]].concat()).0, Some(0));
    assert_eq!(folder.read("suite/good.listing"), "one\ntwo\n");
    assert_eq!(run(&good).0, Some(0));
    folder.write("suite/good.listing", "one\nthree\n");
    let (status, said) = run(&good);
    assert_eq!(status, Some(1));
    assert!(said.contains("good.listing:2: \"two\", should be \"three\""), "{said}");
    // Names, parts and lists of expected failures.
    assert_eq!(run(&["--list"]), (Some(0), "suite/good\nsuite/stuck\n".to_owned()));
    assert_eq!(run(&["--list", "--shard", "2/2"]).1, "suite/stuck\n");
    folder.write("known.txt", "suite/stuck = it has stood there since the beginning\n");
    assert_eq!(run(&["--filter", "stuck", "--expected", "known.txt"]).0, Some(0));
    folder.write("known.txt", "suite/good = thought to fail, but it does not\n");
    std::fs::remove_file(folder.0.join("suite/good.listing")).unwrap();
    let (status, said) = run(&["--filter", "good", "--expected", "known.txt"]);
    assert!(status == Some(1) && said.contains("passes, but is listed as an expected failure"), "{said}");
}

#[test]
fn machine_files_wait_and_type() {
    let folder = Folder::new("guests");
    // Sends "ready> ", waits for a byte on COM1, sends it back, and leaves with 0.
    let mut echo = say("ready> ");
    echo.extend([0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB, 0x66, 0xBA, 0xF8, 0x03, 0xEC, 0xEE]);
    echo.extend(exit(0));
    folder.write("g/echo.kernel", kernel(&echo));
    let file = |script: &str| {
        format!(
            "memory = \"16M\"\n[boot]\nkernel = \"echo.kernel\"\n[run]\ninstructions = 20000000\n{script}\
             [expect]\nstatus = 1\nserial = [\"ready> x$\"]\n"
        )
    };
    folder.write("g/echo.toml", file("script = [{ wait = \"ready> \" }, { type = \"x\" }]\n"));
    folder.write("g/deaf.toml", file("script = [{ wait = \"login:\" }, { type = \"x\" }]\n"));
    folder.write("g/no-test.toml", "cpus = 1\n");
    let output = umbra(&folder.0, &["test", "g", "--json=r.json"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("never sent the text \"login:\""), "{said}");
    let report = report(&folder, "r.json");
    let cases: Vec<_> =
        report["suites"].as_array().unwrap().iter().flat_map(|s| s["cases"].as_array().unwrap()).collect();
    let of = |name: &str| cases.iter().find(|case| case["name"] == name).unwrap();
    assert_eq!(of("echo")["outcome"], "Passed", "{report}");
    assert_eq!(of("deaf")["run"]["end"], "instruction-limit", "{report}");
}

/// Malformed input: (file, its bytes, what the sentence says).
type Malformed = (&'static str, &'static [u8], &'static str);

#[test]
fn malformed_files_get_one_sentence_with_their_position() {
    #[rustfmt::skip]
    let table: &[Malformed] = &[
        ("empty.jsonl",      b"",                                                         "no test has such a name"),
        ("cut.jsonl",        b"{\"m\":64,\"b\":\"90\",\"o\":{}}\n{\"m\":64,",             "cut.jsonl:2: no JSON"),
        ("list.jsonl",       b"[1]\n",                                                    "list.jsonl:1: a case is a JSON object"),
        ("mode.jsonl",       b"# c\n\n{\"m\":48,\"b\":\"90\",\"o\":{}}",                  "mode.jsonl:3: m is 48"),
        ("nomode.jsonl",     b"{\"b\":\"90\",\"o\":{}}",                                  "nomode.jsonl:1: the key \"m\""),
        ("key.jsonl",        b"{\"m\":64,\"b\":\"90\",\"o\":{},\"mapp\":[]}",             "key.jsonl:1: unknown key \"mapp\""),
        ("bytes.jsonl",      b"{\"m\":64,\"b\":\"9\",\"o\":{}}",                          "bytes.jsonl:1: b: "),
        ("nobytes.jsonl",    b"{\"m\":64,\"o\":{}}",                                      "nobytes.jsonl:1: the key \"b\""),
        ("register.jsonl",   b"{\"m\":64,\"b\":\"90\",\"i\":{\"rzx\":\"1\"},\"o\":{}}",   "register.jsonl:1: i: unknown register \"rzx\""),
        ("width.jsonl",      b"{\"m\":64,\"b\":\"90\",\"i\":{\"v0\":\"00\"},\"o\":{}}",   "width.jsonl:1: i: v0 has 1 bytes"),
        ("noo.jsonl",        b"{\"m\":64,\"b\":\"90\"}",                                  "noo.jsonl:1: the key \"o\""),
        ("cpl.jsonl",        b"{\"m\":64,\"cpl\":4,\"load\":[[\"1000\",\"f4\"]],\"o\":{}}", "cpl.jsonl:1: cpl is 4"),
        ("map.jsonl",        b"{\"m\":64,\"map\":[[1,2]],\"load\":[[\"1000\",\"f4\"]],\"o\":{}}", "map.jsonl:1: map: an entry is"),
        ("rights.jsonl",     b"{\"m\":64,\"map\":[[0,1,\"q\"]],\"load\":[[\"1000\",\"f4\"]],\"o\":{}}", "rights.jsonl:1: rights \"q\""),
        ("huge.jsonl",       b"{\"m\":64,\"map\":[[0,\"ffffffffffff\",\"r\"]],\"load\":[[\"1000\",\"f4\"]],\"o\":{}}", "huge.jsonl:1: maps and loads"),
        ("binary.jsonl",     b"\xff\xfe\x00",                                             "binary.jsonl:1: no JSON"),
        ("damaged.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03xxxx",                         "damaged.jsonl.gz: byte 0x0: the gzip stream is damaged"),
        ("cut.moo",          b"MOO \x0c\0\0\0\x01\x01",                                   "cut.moo: byte 0x"),
        ("notmoo.moo",       b"ELF.....",                                                 "notmoo.moo: byte 0x"),
        ("syntax.toml",      b"cpus = 1\n[expect\nstatus = 0\n",                          "syntax.toml:2: "),
        ("field.toml",       b"[expect]\nstatus = 0\nserail = []\n",                      "field.toml:3: unknown field `serail`"),
        ("regex.toml",       b"[expect]\nserial = [\"(\"]\n",                             "regex.toml:2: \"(\" is no regular expression"),
        ("kernel.toml",      b"[boot]\nkernel = \"gone\"\n[expect]\nstatus = 0\n",        "gone: there is no such file"),
        ("latin.toml",       b"[expect]\nend = \"\xe4\"\n",                               "latin.toml: byte 0x10: is not text"),
        ("cut.flat",         b"\x7fELF\x01\x01\x01\0",                                    "cut.flat: "),
        ("words.flat",       b"just some words",                                          "words.flat: "),
        ("odd.rom",          &[0x90; 1000],                                               "odd.rom: is no test"),
        ("words.txt",        b"just some words",                                          "words.txt: is no test"),
        ("void.rom",         b"",                                                         "void.rom: is empty"),
        ("unittests.cfg",    b"[a]\nfile = a.flat\nsmp = many\n",                         "unittests.cfg:3: smp: \"many\" is no number"),
    ];
    let folder = Folder::new("malformed");
    for (name, bytes, wanted) in table {
        folder.write(name, bytes);
        let output = umbra(&folder.0, &["test", name]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(wanted) && !said.contains("panicked"), "{name}: {wanted} in {said}");
    }
    // Among good files they cost nothing but themselves.
    folder.write("good.jsonl", r#"{"m":64,"b":"90","n":"nop","i":{},"o":{"rip":1}}"#);
    let output = umbra(&folder.0, &["test", ".", "--jobs", "2", "--json=r.json", "--junit", "j.xml"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    let report = report(&folder, "r.json");
    let count = |key: &str| {
        report["suites"].as_array().unwrap().iter().map(|s| s["counts"][key].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((count("passed"), count("failed")), (1, 0), "{report}");
    assert!(count("refused") >= 24, "{report}");
    let expected = [
        (&["test", "gone"][..], "gone: there is no such file, folder or suite"),
        (&["test", "good.jsonl", "--cpu", "z80"], "there is no processor model \"z80\"; try "),
        (&["test", "good.jsonl", "--shard", "3/2"], "is not a part; try "),
        (&["test", "good.jsonl", "--expected", "gone"], "gone: "),
        (&["test", "good.jsonl", "--expect", "5"], "--post-port"),
        (&["test", "good.jsonl", "--expected", "words.txt"], "words.txt:1: an entry is"),
        (&["report", "merge", "words.txt"], "words.txt:1: no report"),
    ];
    for (words, wanted) in expected {
        let output = umbra(&folder.0, words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(wanted), "{words:?}: {wanted} in {said}");
    }
}

#[test]
fn parts_merge_to_the_whole_with_the_words_of_cargo() {
    let folder = Folder::new("parts");
    let case = |n: u32, value: u32| {
        format!(
            r#"{{"m":64,"id":"c{n}","b":"48ffc0","n":"inc rax","i":{{"rax":"1"}},"o":{{"rax":"{value}","rip":3}}}}"#
        )
    };
    let lines: Vec<String> = (0..7).map(|n| case(n, if n == 5 { 3 } else { 2 })).collect();
    folder.write("v/a.jsonl", lines.join("\n"));
    folder.write(
        "tests.log",
        "     Running tests/writers.rs (target/debug/deps/writers-1)\nrunning 1 test\ntest x ... ok\n",
    );
    for part in ["1/3", "2/3", "3/3"] {
        let json = format!("--json=r{}.json", &part[..1]);
        let output = umbra(&folder.0, &["test", "v", "--shard", part, &json, "--all"]);
        assert!(matches!(output.status.code(), Some(0 | 1)));
    }
    let output = umbra(
        &folder.0,
        &["report", "merge", "r1.json", "r2.json", "r3.json", "tests.log", "--html", "r.html", "--junit", "j.xml"],
    );
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("7 of       8 passed, 1 FAILED"), "{said}");
    for part in ["rax: 2, should be 3 (was 1)", "uop 0  ", "repeat: umbra test v/a.jsonl --filter '*/c5 *'"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let page = folder.read("r.html");
    for part in ["S3 every writer", "kept", "Binary arithmetic (5.1.2)", "rax: 2, should be 3"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(folder.read("j.xml").matches("<testcase").count(), 8);
    // The command that is printed repeats the one case.
    let output = umbra(&folder.0, &["test", "v/a.jsonl", "--filter", "*/c5 *"]);
    assert!(text(&output.stdout).contains("0 of       1 passed, 1 FAILED"));
}

/// `both` is each test on each engine, or one sentence on a host that has only one.
#[test]
fn both_engines_run_each_test() {
    let folder = Folder::new("engines");
    folder.write("t/a.jsonl", r#"{"m":64,"b":"48ffc0","n":"inc rax","i":{"rax":"1"},"o":{"rax":"2","rip":3}}"#);
    folder.write("t/k.flat", kernel(&exit(0)));
    let output = umbra(&folder.0, &["test", "t", "--engine", "both"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    if output.status.code() == Some(0) {
        for part in ["t/a (interp)", "t/a (jit)", "t (interp)", "t (jit)", "4 of       4 passed"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    } else {
        assert!(said.contains("; try --engine interp"), "{said}");
    }
}

/// Vectors and guests run on paged memory, and what repeats a failure says so.
#[test]
fn memory_is_kept_as_it_is_asked_for() {
    let folder = Folder::new("policies");
    let case = |name: &str, result: u32| {
        format!(r#"{{"m":64,"b":"48ffc0","n":"{name}","i":{{"rax":"1"}},"o":{{"rax":"{result}","rip":3}}}}"#)
    };
    folder.write("t/a.jsonl", [case("right", 2), case("wrong", 3)].join("\n"));
    folder.write("t/good.flat", kernel(&exit(0)));
    folder.write("t/bad.flat", kernel(&exit(1)));
    let output = umbra(&folder.0, &["test", "t", "--memory-policy", "paged", "--engine", "interp"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["2 of       4 passed", "--memory-policy paged", "--memory-limit 1M"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// A case that hangs is stopped by its count; the child that runs one dies, and only that case fails.
#[cfg(target_os = "linux")]
#[test]
fn a_crash_of_one_case_costs_that_case() {
    use std::process::{Command, Stdio};
    let folder = Folder::new("crash");
    let hang = r#"{"m":64,"n":"hang","max":1000,"load":[["1000","ebfe"]],"o":{"rip":0}}"#;
    let long = r#"{"m":64,"n":"long","max":100000000000,"load":[["1000","ebfe"]],"o":{"rip":0}}"#;
    let good = r#"{"m":64,"b":"90","n":"nop","i":{},"o":{"rip":1}}"#;
    folder.write("crash-of-one.jsonl", [good, hang, long, good].join("\n"));
    let mut command = support::command(&folder.0, &["test", "crash-of-one.jsonl", "--jobs", "1"]);
    let test = command.stdout(Stdio::piped()).spawn().unwrap();
    let parent = test.id().to_string();
    let worker = (0..2000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let words = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let child = status.lines().any(|line| line == format!("PPid:\t{parent}"));
            (child && words.contains("worker")).then(|| entry.file_name().to_string_lossy().into_owned())
        })
    });
    // By now it is in the long case: all before takes milliseconds.
    std::thread::sleep(std::time::Duration::from_secs(2));
    // The shell has this command of its own; `kill` as a program may not be there.
    assert!(Command::new("sh").args(["-c", &format!("kill -ABRT {}", worker.unwrap())]).status().unwrap().success());
    let output = test.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in
        ["2 of       4 passed, 2 FAILED", "met no HLT within 1000 instructions", "the process crashed (SIGABRT)"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
}
