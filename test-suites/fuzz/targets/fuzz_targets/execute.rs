//! `cargo fuzz run execute`: see `umbra_fuzz::execute`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| umbra_fuzz::execute::run(input));
