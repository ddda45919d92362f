//! How much of this process the host holds in memory (Linux: proc(5), /proc/self/statm). Elsewhere unknown.

/// Bytes of this process in the host's memory.
#[cfg(all(target_os = "linux", not(portable)))]
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Unknown here.
#[cfg(not(all(target_os = "linux", not(portable))))]
pub fn resident_bytes() -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux", not(portable)))]
mod tests {
    #[test]
    fn what_is_touched_counts() {
        let before = super::resident_bytes().expect("a number");
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = super::resident_bytes().expect("a number");
        assert!(after >= before + (16 << 20), "{before} {after} {}", block.len());
    }
}
