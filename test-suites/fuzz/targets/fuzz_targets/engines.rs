//! `cargo fuzz run engines`: see `umbra_fuzz::execute::engines`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| umbra_fuzz::execute::engines(input));
