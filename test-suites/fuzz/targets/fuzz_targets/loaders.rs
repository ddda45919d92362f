//! `cargo fuzz run loaders`: see `umbra_fuzz::loaders`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| umbra_fuzz::loaders::run(input));
