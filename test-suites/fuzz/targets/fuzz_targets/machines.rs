//! `cargo fuzz run machines`: see `umbra_fuzz::machines::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| umbra_fuzz::machines::run(input));
