//! What depends on the host's system: the raw terminal, pseudo-terminals, CPU time of children. Each has a plain fallback
//! (no raw mode, no pseudo-terminals, no CPU time), which `--cfg portable` builds everywhere.

pub mod children;
pub mod pty;
pub mod terminal;
