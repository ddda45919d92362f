//! Pseudo-terminals for `--serial pty`. The fallback has none and says so.

use std::fs::File;
use std::io;

/// A new pseudo-terminal: our end, and the name under which another program opens the other one.
pub fn open() -> io::Result<(File, String)> {
    imp::open()
}

#[cfg(all(unix, not(portable)))]
mod imp {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::unix::fs::OpenOptionsExt;

    pub fn open() -> io::Result<(File, String)> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = ptsname(&ours, Vec::new())?.to_string_lossy().into_owned();
        // The other end is opened once to make it raw and then kept open: without it, reading ours would fail until someone comes.
        let theirs = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&name)?;
        let mut modes = rustix::termios::tcgetattr(&theirs)?;
        modes.make_raw();
        rustix::termios::tcsetattr(&theirs, rustix::termios::OptionalActions::Now, &modes)?;
        std::mem::forget(theirs);
        Ok((File::from(ours), name))
    }
}

#[cfg(not(all(unix, not(portable))))]
mod imp {
    use std::fs::File;
    use std::io;

    pub fn open() -> io::Result<(File, String)> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this host has no pseudo-terminals"))
    }
}
