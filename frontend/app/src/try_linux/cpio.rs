//! A cpio archive in the "newc" form, as the Linux kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format).
//!
//! Everything belongs to root; times are zero, so that equal contents give equal archives.

/// An archive under construction.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

/// What an entry is: the type bits of its mode.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// A folder.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, (0, 0), &[]);
    }
    /// A file with its permission bits.
    pub fn file(&mut self, name: &str, permissions: u32, contents: &[u8]) {
        self.entry(name, FILE | permissions, (0, 0), contents);
    }
    /// A symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK | 0o777, (0, 0), target.as_bytes());
    }
    /// A character device.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }
    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inode += 1;
        #[rustfmt::skip]
        let fields = [
            self.inode, mode, 0, 0, 1, 0, contents.len() as u32, 0, 0, device.0, device.1, name.len() as u32 + 1, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("init", 0o755, b"#!/bin/sh\n");
        archive.link("bin/sh", "busybox");
        archive.character_device("console", 5, 1);
        let bytes = archive.finish();
        // Reads it back as the format says.
        let (mut at, mut seen) = (0, Vec::new());
        while at < bytes.len() {
            let text =
                |start: usize, length: usize| std::str::from_utf8(&bytes[start..start + length]).unwrap().to_owned();
            let field = |n: usize| u32::from_str_radix(&text(at + 6 + 8 * n, 8), 16).unwrap() as usize;
            assert_eq!(text(at, 6), "070701");
            let name = text(at + 110, field(11) - 1);
            let start = (at + 110 + field(11)).next_multiple_of(4);
            let contents = text(start, field(6));
            seen.push((name, field(1), contents, (field(9), field(10))));
            at = (start + field(6)).next_multiple_of(4);
        }
        let row = |name: &str, mode, contents: &str, device| (name.to_owned(), mode, contents.to_owned(), device);
        #[rustfmt::skip]
        let expected = [
            row("bin", 0o40755, "", (0, 0)), row("init", 0o100_755, "#!/bin/sh\n", (0, 0)),
            row("bin/sh", 0o120_777, "busybox", (0, 0)), row("console", 0o20600, "", (5, 1)), row("TRAILER!!!", 0, "", (0, 0)),
        ];
        assert_eq!(seen, expected);
    }
}
