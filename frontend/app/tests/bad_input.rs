//! Bad input: each case ends with the right status and one sentence that says what, where and what to try; nothing panics.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Files that are wrong in their own ways, made afresh.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("umbra-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let mut boot_sector = vec![0u8; 512];
        boot_sector[510..].copy_from_slice(&[0x55, 0xAA]);
        // A bzImage's header (boot protocol 2.15) that promises more sectors than there are.
        let mut kernel = vec![0u8; 0x1000];
        kernel[0x1F1] = 40;
        kernel[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        kernel[0x200..0x202].copy_from_slice(&[0xEB, 0x66]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x206..0x208].copy_from_slice(&0x020Fu16.to_le_bytes());
        kernel[0x211] = 1;
        kernel[0x1F4..0x1F8].copy_from_slice(&0x10_0000u32.to_le_bytes());
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(40, 0);
        let mut gzip = b"\x1f\x8b\x08".to_vec();
        gzip.resize(100, 0);
        let mut iso = vec![0u8; 0x9000];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        // A good multiboot kernel: header, then HLT in a loop. Flags bit 16: addresses are in the header.
        let mut good = Vec::new();
        let flags = 1u32 << 16;
        for word in [0x1BAD_B002, flags, 0u32.wrapping_sub(0x1BAD_B002 + flags), 0x10_0000, 0x10_0000, 0, 0, 0x10_0020]
        {
            good.extend(word.to_le_bytes());
        }
        good.extend([0xFA, 0xF4, 0xEB, 0xFD]);
        // Firmware volumes of UEFI code and of variables.
        let volume = |guid: [u8; 16]| {
            let mut bytes = vec![0xFF; 0x2000];
            bytes[0x10..0x20].copy_from_slice(&guid);
            bytes[0x20..0x28].copy_from_slice(&0x2000u64.to_le_bytes());
            bytes[0x28..0x2C].copy_from_slice(b"_FVH");
            bytes
        };
        let nv_data = 0x504F_5B07_4727_85A9_4C8B_7696_FFF1_2B8Du128.to_le_bytes();
        let (code, vars) = (volume([7; 16]), volume(nv_data));
        #[rustfmt::skip]
        let files: &[(&str, &[u8])] = &[
            ("empty", b""), ("text", b"just some words\n"), ("zeros", &[0; 4096]), ("boot.img", &boot_sector),
            ("cut-kernel", &kernel), ("cut-elf", &elf), ("packed.gz", &gzip), ("disc.iso", &iso), ("good", &good),
            ("disk.qcow2", b"QFI\xfb\0\0\0\x03"), ("bad.toml", b"memory = \"12Q\"\n"), ("unknown.toml", b"\n\nmemroy = \"1G\"\n"),
            ("F_CODE.fd", &code), ("F_CODE.secboot.fd", &code), ("G_CODE.fd", &code), ("F_VARS.fd", &vars),
            ("empty.toml", b""), ("binary.toml", b"\xff\xfe\0"), ("nokernel.toml", b"[boot]\nkernel = \"gone\"\n"),
        ];
        for (name, bytes) in files {
            std::fs::write(path.join(name), bytes).unwrap();
        }
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn umbra(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command.args(words).current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1").output().unwrap()
}

#[test]
fn bad_input_gets_one_sentence() {
    let folder = Folder::new("bad-input");
    /// (words after `umbra`, what the sentence says, exit status)
    type Case = (&'static [&'static str], &'static str, i32);
    #[rustfmt::skip]
    let cases: &[Case] = &[
        // Files.
        (&["run", "gone"],                                             "gone: there is no such file", 2),
        (&["run", "empty"],                                            "empty: the file is empty", 2),
        (&["run", "text"],                                             "a text file", 2),
        (&["run", "zeros"],                                            "a file of no known kind", 2),
        (&["run", "."],                                                "this is a folder", 2),
        (&["run", "packed.gz"],                                        "a gzip file", 2),
        (&["run", "cut-elf"],                                          "cut-elf: ", 2),
        (&["run", "--kernel", "gone"],                                 "--kernel gone: there is no such file", 2),
        (&["run", "--kernel", "empty"],                                "--kernel empty: the file is empty", 2),
        (&["run", "--kernel", "cut-kernel"],                           "cut-kernel: the file is cut short", 2),
        (&["run", "--kernel", "text"],                                 "a text file, not a kernel", 2),
        (&["run", "--kernel", "boot.img"],                             "a boot sector or disk image", 2),
        (&["run", "--kernel", "disc.iso"],                             "a CD-ROM image", 2),
        (&["run", "--kernel", "."],                                    "this is a folder", 2),
        (&["run", "--kernel", "good", "--initrd", "gone"],             "--initrd gone: there is no such file", 2),
        (&["run", "--kernel", "good", "--initrd", "empty"],            "--initrd empty: the file is empty", 2),
        (&["run", "--initrd", "text"],                                 "there is an initrd but no kernel", 2),
        (&["run", "--append", "quiet"],                                "there is a command line but no kernel", 2),
        (&["run", "good", "--kernel", "good"],                         "both kernels", 2),
        (&["run", "--bios", "gone"],                                   "--bios gone: there is no such file", 2),
        (&["run", "--bios", "F_VARS.fd"],                              "F_VARS.fd: this holds UEFI variables, not firmware", 2),
        (&["run", "--bios", "F_CODE.secboot.fd"],                      "wants system-management mode", 2),
        (&["run", "--bios", "F_CODE.fd", "--flash-vars", "text"],      "text: this holds no UEFI variables", 2),
        (&["run", "--bios", "F_CODE.fd", "--flash-vars", "."],         "try another path for --flash-vars", 2),
        (&["run", "--bios", "F_CODE.fd", "--flash-vars", "no/such"],   "try another path for --flash-vars", 2),
        (&["run", "--bios", "G_CODE.fd", "--flash-vars", "new"],       "new: there is no such file yet, and no template", 2),
        (&["run", "--bios", "zeros", "--flash-vars", "new"],           "--flash-vars is for UEFI firmware", 2),
        (&["run", "good", "--flash-vars", "new"],                      "no firmware that has any", 2),
        (&["run", "--cdrom", "empty"],                                 "--cdrom empty: the file is empty", 2),
        (&["run", "disk.qcow2", "--disk", "gone,ro"],                  "--disk gone: there is no such file", 2),
        (&["run", "disk.qcow2"],                                       "this is no good qcow2 image", 2),
        (&["run"],                                                     "there is nothing to boot", 2),
        // Machine files.
        (&["run", "gone.toml"],                                        "gone.toml: there is no such file", 2),
        (&["run", "bad.toml"],                                         "bad.toml:1: \"12Q\" is not a size", 2),
        (&["run", "unknown.toml"],                                     "unknown.toml:3: unknown field `memroy`", 2),
        (&["run", "empty.toml"],                                       "there is nothing to boot", 2),
        (&["run", "binary.toml"],                                      "binary.toml: this is not a text file", 2),
        (&["run", "nokernel.toml"],                                    "gone: there is no such file", 2),
        // Options.
        (&["run", "good", "-m", "12Q"],                                "\"12Q\" is not a size", 2),
        (&["run", "good", "-m", ""],                                   "is not a size", 2),
        (&["run", "good", "-m", "64K"],                                "memory: a memory of 65536 bytes", 2),
        (&["run", "good", "-m", "9999999T"],                           "", 2),
        (&["run", "good", "-m", "900G"],                               "", -24),
        (&["run", "good", "--cpus", "0"],                              "cpus = 0", 2),
        (&["run", "good", "--cpus", "65"],                             "cpus = 65", 2),
        (&["run", "good", "--cpus", "two"],                            "invalid value 'two'", 2),
        (&["run", "good", "--cpu", "z80"],                             "no processor model \"z80\"", 2),
        (&["run", "good", "--engine", "fast"],                         "invalid value 'fast'", 2),
        (&["run", "good", "--engine", "both", "--clock", "real"],      "needs the virtual clock", 2),
        (&["run", "good", "--jit-threshold", "0"],                     "invalid value '0'", 2),
        (&["run", "good", "--clock", "lunar"],                         "invalid value 'lunar'", 2),
        (&["run", "good", "--frame-order", "random"],                  "\"random\" is not an order of frames", 2),
        (&["run", "good", "--compact-every", "often"],                 "\"often\" is not a length of time", 2),
        (&["run", "good", "--compact-every", "0s"],                    "compact-every is no time at all", 2),
        (&["run", "good", "--rtc", "tomorrow"],                        "\"tomorrow\" is not a date", 2),
        (&["run", "good", "--serial", "com1"],                         "\"com1\" is not a serial port's target", 2),
        (&["run", "good", "--serial", "stdio", "--serial", "stdio"],   "two serial ports are both stdio", 2),
        (&["run", "good", "--serial", "file:no/such/folder/log"],      "no/such/folder/log", 2),
        (&["run", "good", "--sound", "sb16"],                          "\"sb16\" is not a machine's sound", 2),
        (&["run", "good", "--sound", "ac97,wav="],                     "\"ac97,wav=\" is not a machine's sound", 2),
        (&["run", "good", "--sound", "wav=no/such/folder/a.wav"],      "--sound wav=no/such/folder/a.wav", 2),
        (&["run", "good", "--sound", "wav=/dev/full"],                 "--sound wav=/dev/full: ", 2),
        (&["run", "good", "--until", "("],                             "--until \"(\" is not a regular expression", 2),
        (&["run", "good", "--fail-on", "x*"],                          "--fail-on \"x*\" matches an empty text", 2),
        (&["run", "good", "--timeout", "soon"],                        "\"soon\" is not a length of time", 2),
        (&["run", "good", "--on-reset", "explode"],                    "invalid value 'explode'", 2),
        (&["run", "good", "--on-crash", "explode"],                    "invalid value 'explode'", 2),
        (&["run", "good", "--disk", ",ro"],                            "is not a disk", 2),
        (&["run", "good", "--trace", "everything"],                    "--trace has no category \"everything\"", 2),
        (&["run", "good", "--dump", "core"],                           "--dump takes uops or host", 2),
        (&["run", "good", "--disable", "everything"],                  "everything names no optimisation", 2),
        (&["run", "good", "--gdb", "nowhere"],                         "--gdb \"nowhere\"", 2),
        (&["run", "good", "--gdb", "256.0.0.1:99999"],                 "--gdb \"256.0.0.1:99999\"", 2),
        (&["run", "good", "--memory-policy", "shared"],                "invalid value 'shared'", 2),
        (&["run", "good", "--memory-limit", "1000K"],                  "a memory limit of 1024000 bytes is too small", 2),
        (&["run", "good", "--memory-limit", "2M", "--memory-policy", "pinned"], "pinned memory stays", 2),
        (&["run", "good", "--memory-limit", "2M", "--swap-dir", "no/such"], "no/such", -24),
        (&["run", "good", "--tablet", "maybe"],                        "invalid value 'maybe'", 2),
        (&["run", "good", "--control", "no/such/socket"],              "--control no/such/socket", 4),
        (&["run", "good", "--trace-events", "no/such/trace"],          "--trace-events no/such/trace", 4),
        (&["run", "good", "--display", "window", "--headless"],        "cannot be used with", 2),
        (&["run", "good", "--save-config", "no/such/folder/m.toml"],   "no/such/folder/m.toml", 4),
        (&["run", "good", "--colour"],                                 "unexpected argument '--colour'", 2),
        // Verbs.
        (&["fly"],                                                     "unrecognized subcommand 'fly'", 2),
        (&["test"],                                                    "required", 2),
        (&["test", "gone"],                                            "gone: there is no such file, folder or suite", 2),
        (&["test", "text", "--shard", "5/4"],                          "\"5/4\" is not a part", 2),
        (&["batch", "gone.toml"],                                      "gone.toml: there is no such file", 2),
        (&["report", "merge", "gone.json"],                            "gone.json", 2),
        (&["report", "merge", "text"],                                 "no report", 2),
        (&["bench", "--guests", "text"],                               "text/kernels", 4),
        (&["inspect", "everything", "good"],                           "invalid value 'everything'", 2),
        (&["try", "windows"],                                          "unrecognized subcommand 'windows'", 2),
        (&["bench", "--against", "bochs"],                             "invalid value 'bochs'", 2),
        (&["bench", "--without", "roots,speed"],                       "speed names no optimisation", 2),
    ];
    let mut wrong = Vec::new();
    for &(words, says, status) in cases {
        // The one machine that may get as far as to run stops at once.
        let run: &[&str] = if status == -24 { &["--timeout", "10ms"] } else { &[] };
        let output = umbra(&folder.0, &[words, run].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        let sentences: Vec<&str> = text.lines().filter(|line| line.starts_with("umbra: ")).collect();
        let last = sentences.last().copied().unwrap_or("");
        let right_status = match status {
            // Far more memory than hosts have: input, host error, or a host that overcommits.
            -24 => output.status.code().is_some_and(|code| [2, 4, 124].contains(&code)),
            status => output.status.code() == Some(status),
        };
        let others = text.lines().any(|line| !line.starts_with("umbra: "));
        if !right_status || !last.contains(says) || others || (!last.contains("try") && !last.contains("similar")) {
            wrong.push(format!("umbra {}: {:?}\n{text}", words.join(" "), output.status.code()));
        }
        assert!(!text.contains("panicked"), "{words:?}: {text}");
    }
    assert!(cases.len() >= 25);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn help_and_version_are_no_errors() {
    let folder = Folder::new("help");
    for words in [&["--version"][..], &["--help"], &["run", "--help"], &["try", "linux", "--help"]] {
        let output = umbra(&folder.0, words);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(text.contains("umbra") || text.contains("Usage"), "{text}");
        assert!(!text.contains('\x1b'), "colour under NO_COLOR: {text}");
    }
}

#[test]
fn a_machine_file_is_written_and_read_again() {
    let folder = Folder::new("save");
    let saved =
        umbra(&folder.0, &["run", "good", "-m", "32M", "--seed", "9", "--timeout", "20s", "--save-config", "m.toml"]);
    assert_eq!(saved.status.code(), Some(0), "{saved:?}");
    let text = std::fs::read_to_string(folder.0.join("m.toml")).unwrap();
    assert!(text.contains("memory = \"32M\"") && text.contains("seed = 9"), "{text}");
    // The guest sleeps for good at once.
    let run = umbra(&folder.0, &["run", "m.toml", "--clock", "virtual", "--json", "--serial", "none"]);
    let line = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(124), "{run:?}");
    assert!(line.starts_with("{\"status\":124,\"end\":\"asleep\""), "{run:?}");
}

/// A host that gives emitted code no memory, or has no emitter: it is said in one sentence, and the interpreter runs.
#[test]
fn without_memory_for_code_the_interpreter_runs() {
    let folder = Folder::new("no-code");
    // No file may grow, so neither may the memory file that emitted code lies in.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" run good --engine jit --clock virtual --serial none --json";
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", script, env!("CARGO_BIN_EXE_umbra")]).current_dir(&folder.0).stdin(Stdio::null());
    let output = shell.env("NO_COLOR", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let sentences: Vec<&str> = said.lines().filter(|line| line.contains("the interpreter runs instead")).collect();
    assert_eq!(sentences.len(), 1, "{said}");
    // It ran to its HLT.
    assert_eq!(output.status.code(), Some(124), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"end\":\"asleep\""), "{output:?}");
}
