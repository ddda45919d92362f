//! The JIT on hosts for which there is no emitter: it cannot be made, and says so.

use crate::cache::{Block, BlockKey, BlockRef};
use crate::fault::Fault;
use crate::vcpu::Vcpu;

/// Why there can be no emitted code here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ArenaError {
    /// The host's processor is another one.
    #[error("emitted code needs an x86-64 host")]
    NoEmitter,
}

/// There is none.
#[derive(Debug)]
pub enum Jit {}

impl Jit {
    /// Never.
    pub fn new(_: usize) -> Result<Box<Jit>, ArenaError> {
        Err(ArenaError::NoEmitter)
    }
    /// No names.
    pub fn set_perf_map(&mut self, _: std::fs::File) {}
    /// Nothing to switch off.
    pub fn set_disable(&mut self, _: Disable) {}
    /// None.
    pub fn code_of(&self, _: &BlockKey) -> Vec<[(u64, &[u8]); 2]> {
        match *self {}
    }
    /// Nothing to count.
    pub fn counters(&self) -> JitCounters {
        match *self {}
    }
}

/// As in the emitter.
pub const SLACK: u64 = 96;

/// The default size of the code cache in bytes.
pub const DEFAULT_BYTES: usize = 0;

/// Optimisations that can be switched off by name: none.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Disable(pub u32);

impl Disable {
    /// Names on the command line.
    pub const NAMES: [(&'static str, u32); 0] = [];
}

/// What a JIT counts.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct JitCounters {}

impl JitCounters {
    /// Nothing.
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Nothing.
#[derive(Debug, Default)]
pub struct Frame {}

impl Frame {
    /// Nothing to do again.
    pub fn note_load(&mut self, _: u64, _: crate::state::Segment) {}
}

/// What the dispatcher does after emitted code was left.
#[derive(Copy, Clone, Debug)]
pub enum Next {
    /// Goes on with this block.
    Block(BlockRef),
    /// Looks at events.
    Leave,
    /// Nothing was done: the interpreter runs the block.
    Interpret,
    /// The interpreter runs this block.
    Instead(BlockRef),
}

impl Vcpu {
    /// Switches the JIT on, or off (`None`).
    pub fn use_jit(&mut self, jit: Option<Box<Jit>>) {
        self.link.jit = jit;
    }
    pub(crate) fn warm(&mut self, _: BlockRef) -> bool {
        false
    }
    pub(crate) fn run_emitted(&mut self, _: &Block, _: u64) -> Result<Next, Fault> {
        Ok(Next::Interpret)
    }
}
