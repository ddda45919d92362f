//! Records which pages a guest uses, for the comparison of replacement policies (`mmu/tests/policies.rs`):
//!
//! ```sh
//! cargo run --release -p umbra-machine --example record_pages -- OUT SLICES INSTRUCTIONS SKIP KERNEL INITRD APPEND
//! ```
//! Runs on the virtual clock; after SKIP instructions, and then each INSTRUCTIONS, the pages used meanwhile are a slice. The
//! file is LZ4: for each slice the number of its pages, then each page's distance from the one before, as LEB128.

use umbra_machine::config::Clock;
use umbra_machine::{Machine, RunEnd, RunLimits};

fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, slices, instructions, skip, kernel, initrd, append] = args.as_slice() else {
        eprintln!("record_pages: OUT SLICES INSTRUCTIONS SKIP KERNEL INITRD APPEND");
        std::process::exit(2);
    };
    let count = |text: &String| text.parse::<u64>().expect("a number");
    let (slices, instructions, skip) = (count(slices), count(instructions), count(skip));
    let builder = Machine::builder().memory(256 << 20).clock(Clock::Virtual).append(append);
    let mut machine = builder.kernel_file(kernel).initrd_file(initrd).build().expect("a machine");
    let (mut bytes, mut references) = (Vec::new(), 0);
    let mut limit = skip;
    for slice in 0..=slices {
        let end = machine.run(RunLimits { instructions: Some(limit), ..RunLimits::default() });
        machine.vcpus_mut().iter_mut().for_each(|vcpu| vcpu.link.mmu.drain());
        let used = machine.memory().take_used();
        if slice != 0 {
            number(&mut bytes, used.len() as u64);
            let mut last = 0;
            for page in &used {
                number(&mut bytes, page.0 - last);
                last = page.0;
            }
            references += used.len();
        }
        if end != RunEnd::InstructionLimit {
            eprintln!("{end:?} after {slice} slices");
            break;
        }
        limit += instructions;
    }
    let packed = lz4_flex::compress_prepend_size(&bytes);
    println!("{out}: {references} references, {} bytes, {} packed", bytes.len(), packed.len());
    std::fs::write(out, packed).expect("written");
}
