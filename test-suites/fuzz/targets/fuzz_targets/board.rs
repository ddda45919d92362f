//! `cargo fuzz run board`: see `umbra_fuzz::board`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| umbra_fuzz::board::run(input));
