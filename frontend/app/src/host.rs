//! What depends on the host's system: the raw terminal, pseudo-terminals, CPU time of children, this process's memory. Each
//! has a plain fallback (no raw mode, no pseudo-terminals, no figures), which `--cfg portable` builds everywhere.

pub mod children;
pub mod memory;
pub mod pty;
pub mod terminal;
