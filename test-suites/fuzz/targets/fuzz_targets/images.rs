//! `cargo fuzz run images`: see `umbra_fuzz::images`.
//!
//! The driver of qcow2 images may panic on a damaged one: that is caught and becomes an I/O error. So only a panic that nobody caught
//! counts here, where libFuzzer's hook would end the run at each.
#![no_main]

libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |input: &[u8]| {
    if let Err(panic) = std::panic::catch_unwind(|| umbra_fuzz::images::run(input)) {
        let said = panic.downcast_ref::<String>().cloned();
        eprintln!("images: {}", said.or(panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default());
        std::process::abort();
    }
});
