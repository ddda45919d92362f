//! The smallest qcow2 image that is sound, to be written to or damaged: for the tests of this crate and for fuzzing.

use super::QCOW2_MAGIC;

/// Bytes of a cluster.
pub const CLUSTER: usize = 1 << 16;

/// A qcow2 image, version 2, with one table of each kind, of `clusters` clusters that are not there; `backing` (if not empty) is
/// the file behind it.
pub fn empty_qcow2(clusters: u64, backing: &str) -> Vec<u8> {
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = image.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, QCOW2_MAGIC);
    put(4, &2_u32.to_be_bytes());
    if !backing.is_empty() {
        put(8, &512_u64.to_be_bytes());
        put(16, &(backing.len() as u32).to_be_bytes());
        put(512, backing.as_bytes());
    }
    put(20, &16_u32.to_be_bytes());
    put(24, &(clusters * CLUSTER as u64).to_be_bytes());
    // First-level table with one entry at 3, reference count table at 1, its block at 2.
    put(36, &1_u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    image
}
