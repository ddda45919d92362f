//! The full check of 80-bit arithmetic: `cargo run --release -p umbra-oracle --example arithmetic80 -- [OPERANDS] [SEED]`.

use std::time::Instant;
use umbra_oracle::arithmetic80::{Operation, check, has_native};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    println!(
        "operands {count}, seed {seed}, 12 modes each; the host's x87 is {}asked",
        if has_native() { "" } else { "not " }
    );
    let mut failed = 0;
    for operation in Operation::ALL {
        let started = Instant::now();
        let tally = check(operation, count, seed);
        println!(
            "{operation:?}: {} vectors, {} against the host, {} differ, {:.0} s",
            tally.vectors,
            tally.native,
            tally.failed,
            started.elapsed().as_secs_f64()
        );
        tally.differences.iter().for_each(|line| println!("  {line}"));
        failed += tally.failed;
    }
    if failed > 0 { Err(format!("{failed} differences").into()) } else { Ok(()) }
}
