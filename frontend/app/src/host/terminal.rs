//! The raw terminal: what is typed reaches the guest as it is, and the terminal is as before however Umbra ends.
//!
//! Restored when [`RawTerminal`] is dropped (at the end, and when a panic unwinds), and by a handler for the signals that end
//! a process. Output processing stays on, so that lines of our own need no carriage returns. The fallback leaves the
//! terminal alone: then the host's line editing stays between the keys and the guest.

/// The terminal is raw while this lives.
#[derive(Debug)]
pub struct RawTerminal(#[allow(dead_code, reason = "restores when it is dropped")] imp::Guard);

impl RawTerminal {
    /// Makes standard input raw, if it is a terminal and ours.
    pub fn enter() -> Option<RawTerminal> {
        imp::enter().map(RawTerminal)
    }
}

#[cfg(all(unix, not(portable)))]
#[allow(
    unsafe_code,
    reason = "a signal handler that restores the terminal needs sigaction, which no safe wrapper offers"
)]
mod imp {
    use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The signals that end a process by default and that may come from outside.
    const ENDING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

    /// How the terminal was. Set before the handlers are.
    static BEFORE: OnceLock<libc::termios> = OnceLock::new();
    /// Whether the terminal is raw now.
    static RAW: AtomicBool = AtomicBool::new(false);

    #[derive(Debug)]
    pub struct Guard(Termios);

    pub fn enter() -> Option<Guard> {
        let stdin = std::io::stdin();
        if !termios::isatty(&stdin) {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        if termios::tcgetpgrp(&stdin).ok()? != rustix::process::getpgrp() {
            // In the background a change would stop this process.
            return None;
        }
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes = before.output_modes;
        raw.local_modes -= LocalModes::ECHO;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        catch_signals();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        RAW.store(true, Ordering::SeqCst);
        Some(Guard(before))
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            RAW.store(false, Ordering::SeqCst);
            let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
        }
    }

    fn catch_signals() {
        let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: `before` is written by a successful call, and read only then.
        let known = unsafe { libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) } == 0;
        if !known {
            return;
        }
        // SAFETY: the call above succeeded.
        let before = unsafe { before.assume_init() };
        if BEFORE.set(before).is_err() {
            return;
        }
        for signal in ENDING {
            // SAFETY: a zeroed sigaction is a valid one (default action, empty mask).
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = restore as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
            // SAFETY: the handler makes async-signal-safe calls only, and lives as long as the process.
            unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
        }
    }

    /// Restores the terminal, then lets the signal do what it does by default (SA_RESETHAND).
    extern "C" fn restore(signal: libc::c_int) {
        if RAW.load(Ordering::SeqCst)
            && let Some(before) = BEFORE.get()
        {
            // SAFETY: tcsetattr is async-signal-safe (POSIX.1, 2.4.3), and `before` is never written again.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before) };
        }
        // SAFETY: raise is async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(not(all(unix, not(portable))))]
mod imp {
    #[derive(Debug)]
    pub struct Guard;

    pub fn enter() -> Option<Guard> {
        None
    }
}
