//! Bounded runs of the oracle: the full ones are the examples `host_cpu` and `arithmetic80`.

use umbra_oracle::arithmetic80::{Operation, check};

/// Softfloat against the exact reference and, where there is one, the host's x87: every operation, all modes.
#[test]
fn arithmetic_of_80_bits() {
    for operation in Operation::ALL {
        let tally = check(operation, 2_000, 80);
        assert_eq!(tally.vectors, 24_000);
        assert_eq!(tally.failed, 0, "{}", tally.differences.join("\n"));
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host_cpu {
    use umbra_cpu::model::CpuModel;
    use umbra_oracle::generate::Generator;
    use umbra_oracle::host::Host;
    use umbra_oracle::layout::{ENTRY, Mode};
    use umbra_oracle::ours::{Engine, Ours};
    use umbra_oracle::program::{Item, Program, Start};
    use umbra_oracle::{compare, shrink, vector_case};

    /// Random programs in each mode. A host that lets no child run them has nothing to say, and the test says so.
    #[test]
    fn random_programs_agree() {
        let mut host = match Host::start() {
            Ok(host) => host,
            Err(error) => return eprintln!("not compared: {error}"),
        };
        let mut generator = Generator::new(&CpuModel::by_name("max").unwrap());
        let mut ours = Ours::new("max", Engine::Interpreter).unwrap();
        let has_16_bit = host.has_16_bit;
        for mode in Mode::ALL.into_iter().filter(|m| *m != Mode::Bits16 || has_16_bit) {
            for seed in 0..300 {
                let program = generator.program(mode, seed);
                if let Some(lines) = shrink::check(&mut host, &mut ours, &program) {
                    let small = shrink::shrink(&mut host, &mut ours, &program);
                    let code = small.assemble().unwrap().code;
                    panic!("seed {seed}: {}\n{lines}", vector_case::disassembly(mode, &code));
                }
            }
        }
        assert!(ours.retired > 10_000, "only {} instructions ran", ours.retired);
    }

    /// The comparison sees each kind of state, or the oracle would agree to anything.
    #[test]
    fn differences_are_seen() {
        let Ok(mut host) = Host::start() else { return };
        let mode = Mode::Bits64;
        let mut start = Start::default();
        start.registers.rip = mode.code() + ENTRY;
        start.registers.gpr[4] = mode.stack() + 0x800;
        start.registers.gpr[7] = mode.data();
        (start.registers.cw, start.registers.mxcsr, start.registers.rflags) = (0x37f, 0x1f80, 0x202);
        // INC EAX; FLD1; MOV [RDI], EAX; PCMPEQD XMM0, XMM0.
        let code = [0xff, 0xc0, 0xd9, 0xe8, 0x89, 0x07, 0x66, 0x0f, 0x76, 0xc0];
        let program = Program { mode, items: vec![Item::Plain { bytes: code.to_vec(), rip: None }, Item::Halt], start };
        let assembled = program.assemble().unwrap();
        let native = host.run(mode, &assembled.code, &program.start).unwrap();
        let own = Ours::new("max", Engine::Interpreter).unwrap().run(mode, &assembled.code, &program.start);
        assert_eq!(compare::differences(mode, 0, &native, &own), "");
        type Change = fn(&mut umbra_oracle::layout::Outcome);
        let changes: [(&str, Change); 8] = [
            ("r0", |o| o.registers.gpr[0] ^= 1 << 40),
            ("rip", |o| o.registers.rip += 1),
            ("flags", |o| o.registers.rflags ^= 0x40),
            ("ymm0", |o| o.registers.vectors[0][3] ^= 1),
            ("st0", |o| o.registers.st[0].1 ^= 1),
            ("sw", |o| o.registers.sw ^= 1 << 9),
            ("arena [0]", |o| o.memory[0] ^= 1),
            ("end", |o| o.end.error ^= 4),
        ];
        for (name, change) in changes {
            let mut wrong = own.clone();
            change(&mut wrong);
            let lines = compare::differences(mode, 0, &native, &wrong);
            assert!(lines.starts_with(name) && lines.lines().count() == 1, "{name}: {lines}");
        }
        // A flag that is undefined is no difference.
        let mut wrong = own.clone();
        wrong.registers.rflags ^= 0x10;
        assert_eq!(compare::differences(mode, iced_af(), &native, &wrong), "");
    }

    /// The decoder's name of AF.
    fn iced_af() -> u32 {
        umbra_oracle::program::AF
    }
}
