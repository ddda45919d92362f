//! Every fuzz target on inputs from a fixed seed, so that each test run looks a little.
//!
//! UMBRA_FUZZ_SEED=N takes another seed, UMBRA_FUZZ_SECONDS=S goes on for that long: where cargo-fuzz is not at hand.

use std::time::{Duration, Instant};
use umbra_fuzz::TARGETS;

/// xorshift64*: any generator serves that gives the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    /// Bytes, and at places a run of equal ones.
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let word = self.next();
            if word & 15 == 0 {
                bytes.extend(std::iter::repeat_n((word >> 8) as u8, (word >> 16) as usize % 40));
            }
            bytes.extend(word.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// A number from the environment.
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a target on `count` inputs, or as many as fit a time that only a slow host exceeds.
fn seeded(name: &str, count: u64, longest: u64) {
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else { panic!("no target {name}") };
    let started = Instant::now();
    let (seed, seconds) = (told("UMBRA_FUZZ_SEED").unwrap_or(0x5EED), told("UMBRA_FUZZ_SECONDS"));
    for number in 0..seconds.map_or(count, |_| u64::MAX) {
        let mut numbers = Numbers((seed << 32) + number * 2 + 1);
        let length = numbers.next() % longest;
        let input = numbers.bytes(length as usize);
        let caught = std::panic::catch_unwind(|| target(&input));
        assert!(caught.is_ok(), "{name}: input {number} of seed {seed}");
        if started.elapsed() > Duration::from_secs(seconds.unwrap_or(60)) {
            eprintln!("{name}: {number} inputs");
            assert!(number > 10, "{name}: {number} inputs in a minute");
            return;
        }
    }
}

#[test]
fn execute() {
    seeded("execute", 3000, 600);
}

#[test]
fn board() {
    seeded("board", 150, 4000);
}

#[test]
fn loaders() {
    seeded("loaders", 5000, 300);
}

#[test]
fn engines() {
    seeded("engines", 1500, 600);
}

#[test]
fn machines() {
    seeded("machines", 60, 600);
}

#[test]
fn images() {
    seeded("images", 400, 300);
}
