//! Whether a qcow2 image may be written: its tables are in the file, lie over nothing else, and everything that they use is
//! counted as used (qcow2 specification, version 3). The driver trusts these tables when it allocates; with wrong ones it
//! would write over the image, or never end.
//!
//! Leaves out: internal snapshots' own tables, bitmaps, what is in compressed clusters.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The most bytes of a first-level or reference count table.
const MAX_TABLE: u64 = 32 << 20;
/// The offset in an entry of any table.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
const COMPRESSED: u64 = 1 << 62;
/// Incompatible features: the guest's data are in another file; entries of second-level tables have 16 bytes.
const EXTERNAL_DATA: u64 = 1 << 2;
const EXTENDED_ENTRIES: u64 = 1 << 4;
/// The image is known to be damaged.
const CORRUPT: u64 = 1 << 1;

struct Walk<'a> {
    file: &'a File,
    cluster: u64,
    clusters: u64,
    /// A bit for each cluster of the file that something uses.
    used: Vec<u64>,
}

/// Refuses an image whose tables cannot be trusted.
pub(super) fn check(file: &File) -> io::Result<()> {
    let mut header = [0; 112];
    let length = file.metadata()?.len();
    let have = length.min(header.len() as u64) as usize;
    file.read_exact_at(header.get_mut(..have).unwrap_or_default(), 0)?;
    let word = |at: usize| header.get(at..at + 4).map_or(0, |b| b.iter().fold(0_u64, |w, &b| w << 8 | u64::from(b)));
    let double = |at: usize| word(at) << 32 | word(at + 4);
    let (version, cluster_bits) = (word(4), word(20));
    if !(2..=3).contains(&version) || !(9..=21).contains(&cluster_bits) {
        return Err(bad("its version or cluster size is unknown"));
    }
    let (features, order) = if version == 3 { (double(72), word(96)) } else { (0, 4) };
    if features & CORRUPT != 0 || order > 6 {
        return Err(bad("it is marked as corrupt, or its reference counts are"));
    }
    let cluster = 1 << cluster_bits;
    let clusters = length.div_ceil(cluster);
    let used = vec![0; clusters.div_ceil(64) as usize];
    let mut walk = Walk { file, cluster, clusters, used };
    walk.take(0)?;
    let first = walk.table(double(40), word(36).saturating_mul(8))?;
    let counts = walk.table(double(48), word(56).saturating_mul(cluster))?;
    for &entry in counts.iter().filter(|&&entry| entry & OFFSET != 0) {
        walk.take(entry & OFFSET)?;
    }
    for &entry in first.iter().filter(|&&entry| entry & OFFSET != 0) {
        walk.take(entry & OFFSET)?;
        walk.second_level(entry & OFFSET, features, cluster_bits)?;
    }
    walk.counted(&counts, order as u32)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Walk<'_> {
    /// Notes that the cluster at an offset is used; it must be in the file, and nobody else's.
    fn take(&mut self, at: u64) -> io::Result<()> {
        let number = at / self.cluster;
        if !at.is_multiple_of(self.cluster) || number >= self.clusters {
            return Err(bad("a table leads out of the file"));
        }
        let word = self.used.get_mut((number / 64) as usize).ok_or_else(|| bad("a table leads out of the file"))?;
        if *word >> (number % 64) & 1 != 0 {
            return Err(bad("two tables use the same part of it"));
        }
        *word |= 1 << (number % 64);
        Ok(())
    }

    fn entries(&self, at: u64, bytes: u64) -> io::Result<Vec<u64>> {
        let mut data = vec![0; bytes as usize];
        self.file.read_exact_at(&mut data, at).map_err(|_| bad("a table leads out of the file"))?;
        Ok(data.chunks_exact(8).map(|entry| entry.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))).collect())
    }

    /// A table of whole clusters, noted as used.
    fn table(&mut self, at: u64, bytes: u64) -> io::Result<Vec<u64>> {
        if bytes > MAX_TABLE {
            return Err(bad("a table is too large"));
        }
        for n in 0..bytes.div_ceil(self.cluster) {
            self.take(at.checked_add(n * self.cluster).ok_or_else(|| bad("a table leads out of the file"))?)?;
        }
        self.entries(at, bytes)
    }

    fn second_level(&mut self, at: u64, features: u64, cluster_bits: u64) -> io::Result<()> {
        let stride = if features & EXTENDED_ENTRIES != 0 { 2 } else { 1 };
        for &entry in self.entries(at, self.cluster)?.iter().step_by(stride) {
            if entry & COMPRESSED != 0 {
                let offset = entry & ((1 << (62 - (cluster_bits - 8))) - 1);
                if offset >= self.clusters * self.cluster {
                    return Err(bad("a compressed part leads out of the file"));
                }
            } else if entry & OFFSET != 0 && features & EXTERNAL_DATA == 0 {
                self.take(entry & OFFSET)?;
            }
        }
        Ok(())
    }

    /// Whether everything that is used has a reference count.
    fn counted(&self, table: &[u64], order: u32) -> io::Result<()> {
        let per_block = (self.cluster * 8) >> order;
        let blocks = self.clusters.div_ceil(per_block);
        for number in 0..blocks {
            let block = table.get(number as usize).map_or(0, |entry| entry & OFFSET);
            let mut data = vec![0; self.cluster as usize];
            if block != 0 {
                self.file.read_exact_at(&mut data, block).map_err(|_| bad("a table leads out of the file"))?;
            }
            let first = number * per_block;
            for index in 0..per_block.min(self.clusters - first) {
                let cluster = first + index;
                let used = self.used.get((cluster / 64) as usize).is_some_and(|word| word >> (cluster % 64) & 1 != 0);
                if used && !has_count(&data, index, order) {
                    return Err(bad("a part that is in use is counted as free"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the count of a cluster, of `1 << order` bits, is not 0.
fn has_count(block: &[u8], index: u64, order: u32) -> bool {
    if order < 3 {
        let bit = index << order;
        let mask = ((1_u32 << (1 << order)) - 1) as u8;
        return block.get((bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & mask != 0);
    }
    let bytes = 1 << (order - 3);
    let at = index as usize * bytes;
    block.get(at..at + bytes).is_some_and(|count| count.iter().any(|&byte| byte != 0))
}
