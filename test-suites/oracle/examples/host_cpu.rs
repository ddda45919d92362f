//! Random programs on the host's processor and in Umbra: `cargo run --release -p umbra-oracle --example host_cpu -- --help`.

use clap::Parser;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Instant;
use umbra_cpu::model::CpuModel;
use umbra_oracle::generate::Generator;
use umbra_oracle::host::{BATCH, Host, Native};
use umbra_oracle::layout::{ENTRY, Mode};
use umbra_oracle::ours::{Engine, Ours};
use umbra_oracle::program::{Assembled, Program};
use umbra_oracle::{compare, shrink, vector_case};

/// Runs random programs on the host's processor and in Umbra, and shrinks what differs to test cases.
#[derive(Parser)]
struct Arguments {
    /// The first seed. Program n of a run has seed SEED + n.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Programs to run in each mode.
    #[arg(long, default_value_t = 20_000)]
    programs: u64,
    /// Modes: 64, 32, 16.
    #[arg(long, value_delimiter = ',', default_value = "64,32,16")]
    modes: Vec<u32>,
    /// The engine: interp or jit.
    #[arg(long, default_value = "interp")]
    engine: String,
    /// Stop after this many differences.
    #[arg(long, default_value_t = 20)]
    stop_after: usize,
    /// Write shrunk cases to this file, in the vector format.
    #[arg(long)]
    save: Option<std::path::PathBuf>,
    /// List the instruction forms that were never generated.
    #[arg(long)]
    coverage: bool,
}

struct Run {
    generator: Generator,
    host: Host,
    ours: Ours,
    found: usize,
    kinds: BTreeMap<u32, u64>,
    left_out: BTreeMap<&'static str, u64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let engine = Engine::by_name(&arguments.engine).ok_or("no such engine: try --engine interp or --engine jit")?;
    let model = CpuModel::by_name("max").ok_or("no model max")?;
    let mut run = Run {
        generator: Generator::new(&model),
        host: Host::start()?,
        ours: Ours::new("max", engine)?,
        found: 0,
        kinds: BTreeMap::new(),
        left_out: BTreeMap::new(),
    };
    let started = Instant::now();
    for mode in Mode::ALL.into_iter().filter(|m| arguments.modes.contains(&m.bits())) {
        if mode == Mode::Bits16 && !run.host.has_16_bit {
            println!("16-bit: left out, this host makes no LDT segments");
            continue;
        }
        let (before, begun) = (run.ours.retired, Instant::now());
        let mut seed = arguments.seed;
        let last = arguments.seed.saturating_add(arguments.programs);
        while seed < last && run.found < arguments.stop_after {
            let count = BATCH.min((last - seed) as usize);
            run.batch(&arguments, mode, seed, count)?;
            seed += count as u64;
        }
        let retired = run.ours.retired - before;
        println!(
            "{}-bit: seeds {} to {}, {} instructions executed, {:.0} a second, {} differences so far",
            mode.bits(),
            arguments.seed,
            seed - 1,
            retired,
            retired as f64 / begun.elapsed().as_secs_f64(),
            run.found
        );
    }
    println!("ends by vector: {:?}", run.kinds);
    for (reason, count) in &run.left_out {
        println!("left out: {count} programs, {reason}");
    }
    println!(
        "all: {} instructions in {:.0} s, {} differences",
        run.ours.retired,
        started.elapsed().as_secs_f64(),
        run.found
    );
    if arguments.coverage {
        let forms =
            Mode::ALL.into_iter().flat_map(|m| run.generator.table(m).all().map(|f| f.code).collect::<Vec<_>>());
        let all: std::collections::BTreeSet<_> = forms.map(|c| c as usize).collect();
        let never = all.iter().filter(|c| run.generator.used[**c] == 0);
        let names: Vec<String> = never.map(|c| format!("{:?}", umbra_oracle::generate::code(*c))).collect();
        println!("{} forms, {} never generated: {}", all.len(), names.len(), names.join(" "));
    }
    if run.found > 0 { Err("there are differences".into()) } else { Ok(()) }
}

impl Run {
    fn batch(
        &mut self,
        arguments: &Arguments,
        mode: Mode,
        seed: u64,
        count: usize,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let programs: Vec<(Program, Assembled)> = (0..count as u64)
            .filter_map(|n| {
                let program = self.generator.program(mode, seed + n);
                let assembled = program.assemble()?;
                Some((program, assembled))
            })
            .collect();
        for (n, (program, assembled)) in programs.iter().enumerate() {
            self.host.put(n, mode, &assembled.code, &program.start);
        }
        self.host.begin(programs.len())?;
        let own: Vec<_> = programs.iter().map(|(p, a)| self.ours.run(mode, &a.code, &p.start)).collect();
        let native = self.host.finish(programs.len());
        let lost = native.iter().any(|n| matches!(n, Native::Lost));
        for (n, ((program, assembled), native)) in programs.iter().zip(&native).enumerate() {
            let Native::Done(native) = native else {
                println!("seed {}: the program ended the native child", seed + n as u64);
                break;
            };
            *self.kinds.entry(native.end.vector).or_default() += 1;
            if let Some(reason) = compare::vendor_difference(mode, &assembled.code, native, &own[n]) {
                *self.left_out.entry(reason).or_default() += 1;
                continue;
            }
            let Some(undefined) = program.undefined_flags() else { continue };
            let entry = mode.code() + ENTRY;
            let names = compare::undefined_at(assembled, &undefined, native.registers.rip.wrapping_sub(entry));
            let lines = compare::differences(mode, names, native, &own[n]);
            if !lines.is_empty() {
                self.report(arguments, program, seed + n as u64, &lines)?;
            }
        }
        if lost {
            self.host = Host::start()?;
        }
        Ok(())
    }

    fn report(
        &mut self,
        arguments: &Arguments,
        program: &Program,
        seed: u64,
        first: &str,
    ) -> Result<(), Box<dyn std::error::Error>> {
        self.found += 1;
        let small = shrink::shrink(&mut self.host, &mut self.ours, program);
        let Some(lines) = shrink::check(&mut self.host, &mut self.ours, &small) else {
            println!("{}-bit seed {seed}: differs only in its batch\n{first}", program.mode.bits());
            return Ok(());
        };
        let Some(assembled) = small.assemble() else { return Ok(()) };
        println!(
            "{}-bit seed {seed}: {}\n{lines}",
            program.mode.bits(),
            vector_case::disassembly(program.mode, &assembled.code)
        );
        if let Some(path) = &arguments.save {
            let native = self.host.run(small.mode, &assembled.code, &small.start)?;
            let offset = native.registers.rip.wrapping_sub(small.mode.code() + ENTRY);
            let names = compare::undefined_at(&assembled, &small.undefined_flags().unwrap_or_default(), offset);
            let line = vector_case::line(&small, &assembled.code, &native, names, &format!("seed {seed}"));
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}
