//! CPU time of other processes, for benchmarks: of one that runs, and of all children that have ended.
//!
//! The fallback knows none: then benchmarks show wall time alone.

/// CPU seconds (user and system) of all children that have ended and were waited for.
pub fn ended_cpu_seconds() -> Option<f64> {
    imp::ended_cpu_seconds()
}

/// CPU seconds so far of a running process, threads that have ended left out.
pub fn running_cpu_seconds(process: u32) -> Option<f64> {
    let mut nanoseconds = 0u64;
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Some(nanoseconds as f64 / 1e9)
}

#[cfg(all(unix, not(portable)))]
#[allow(unsafe_code, reason = "getrusage has no safe wrapper among our crates")]
mod imp {
    pub fn ended_cpu_seconds() -> Option<f64> {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: `usage` is written by a successful call, and read only then.
        if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: the call above succeeded.
        let usage = unsafe { usage.assume_init() };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Some(seconds(usage.ru_utime) + seconds(usage.ru_stime))
    }
}

#[cfg(not(all(unix, not(portable))))]
mod imp {
    pub fn ended_cpu_seconds() -> Option<f64> {
        None
    }
}
