//! Blocks as text: guest instructions, their uops, the host code made of them. For `--dump`, and for the report of the first
//! difference between the engines. Changes nothing that a guest can see.

use crate::cache::patches::Span;
use crate::cache::{Alone, Block, BlockKey};
use crate::decode::{decode, host_text};
use crate::lift::block::{Lifted, dump, lift_bytes, optimise};
use crate::vcpu::Vcpu;
use std::fmt::Write as _;
use umbra_mmu::addr::{Linear, PAGE_OFFSET, PAGE_SIZE, PhysPage};

/// What is known of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// RIP of its first instruction.
    pub rip: u64,
    /// Guest instructions, a line each: RIP, bytes, text.
    pub guest: String,
    /// Their uops, a line each, with the number of the instruction.
    pub uops: String,
    /// Host code by variant, the plain one first; empty if there is none.
    pub host: Vec<String>,
}

impl Vcpu {
    /// The blocks that hold the instruction at `rip`, as lifted last; if there is none, the instructions there as they would be
    /// lifted now.
    pub fn listings(&self, rip: u64) -> Vec<Listing> {
        let mut found: Vec<Listing> = self.link.cache.around(rip).map(|block| self.listing(block)).collect();
        found.sort_by_key(|listing| (listing.rip, listing.guest.len()));
        found.dedup();
        if found.is_empty() {
            found.extend(self.would_be(rip));
        }
        found
    }

    fn listing(&self, block: &Block) -> Listing {
        let mut bytes = vec![0; usize::from(block.len())];
        let offset = block.key.linear & PAGE_OFFSET;
        let room = bytes.len().min((PAGE_SIZE - offset) as usize);
        let (first, rest) = bytes.split_at_mut(room);
        self.link.memory.read(block.key.page.base().wrapping_add(offset), first);
        if let Some(second) = block.second {
            self.link.memory.read(second.base(), rest);
        }
        self.list(&bytes, &block.key, &block.patched)
    }

    fn would_be(&self, rip: u64) -> Option<Listing> {
        let linear = rip.wrapping_add(self.linear_rip().wrapping_sub(self.state.rip));
        let mut bytes = [0; 64];
        let readable =
            (1..=bytes.len()).rev().find(|&len| self.link.mmu.peek(Linear(linear), &mut bytes[..len]).is_ok())?;
        let page = PhysPage(u64::MAX >> 12);
        let key = BlockKey { page, linear, rip, mode: self.link.mode, alone: Alone::No };
        Some(self.list(&bytes[..readable], &key, &[]))
    }

    fn list(&self, bytes: &[u8], key: &BlockKey, changing: &[Span]) -> Listing {
        let mut lifted = Lifted::default();
        lifted.changing.extend_from_slice(changing);
        lift_bytes(self, bytes, key, &mut lifted);
        optimise(&mut lifted.uops);
        let mut guest = String::new();
        for part in lifted.offsets.windows(2) {
            let (from, to) = (usize::from(part[0]), usize::from(part[1]));
            let at = key.rip.wrapping_add(from as u64);
            let decoded = decode(&bytes[from..], at, key.mode, self.link.model.encoding());
            let text = decoded.map_or("(no instruction)".to_owned(), |insn| insn.text());
            let raw: String = bytes[from..to].iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(guest, "{at:12x}  {raw:<22} {text}");
        }
        let code = self.link.jit.as_ref().map(|jit| jit.code_of(key)).unwrap_or_default();
        let host =
            code.into_iter().map(|parts| parts.map(|(address, bytes)| host_text(bytes, address)).join("\n")).collect();
        Listing { rip: key.rip, guest, uops: dump(&lifted.uops), host }
    }
}
