//! What a device is to the board: ports and windows by offset, time by `now`, state as bytes.

use crate::clock::Tick;
use thiserror::Error;
use umbra_mmu::dma::Dma;

/// The width of one access on the bus, in bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Width {
    /// One byte.
    B1 = 1,
    /// Two bytes.
    B2 = 2,
    /// Four bytes.
    B4 = 4,
    /// Eight bytes (MMIO only).
    B8 = 8,
}

impl Width {
    /// The width in bytes.
    pub const fn bytes(self) -> u64 {
        self as u64
    }
    /// All ones in this width: what an open bus reads as.
    pub const fn ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self as u32)
    }
}

/// Why a device did not take an access. The board answers a read with all ones, drops a write, and traces it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub enum IoError {
    /// There is no register at this offset.
    #[error("no such register")]
    NoSuchRegister,
    /// The register does not take this width. The board splits the access into bytes if the device allows it.
    #[error("bad width")]
    BadWidth,
}

/// What a device is lent for the length of one call.
pub struct Ctx<'a> {
    /// Guest time now.
    pub now: Tick,
    /// Guest memory as a bus master sees it.
    pub dma: &'a mut dyn Dma,
}

/// A saved state that does not fit the device it is given to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{device}: the saved state does not fit ({reason})")]
pub struct StateError {
    /// The device's name.
    pub device: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A device on the board. All methods are called under the board's lock, with time already advanced to `now`.
///
/// Port offsets count from the start of the range that the board gave to this device, and `range` numbers its ranges in
/// the order of the device's documentation (a chip with ports 20h–21h and 4D0h has ranges 0 and 1).
pub trait Device: Send {
    /// A short name for traces and messages, e.g. `pit8254`.
    fn name(&self) -> &'static str;
    /// Power-on reset (also RESET#, unless the chip keeps state over it).
    fn reset(&mut self, cx: &mut Ctx<'_>);
    /// Reads a port.
    fn port_read(&mut self, _cx: &mut Ctx<'_>, _range: u8, _offset: u16, _width: Width) -> Result<u32, IoError> {
        Err(IoError::NoSuchRegister)
    }
    /// Writes a port.
    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        _range: u8,
        _offset: u16,
        _width: Width,
        _value: u32,
    ) -> Result<(), IoError> {
        Err(IoError::NoSuchRegister)
    }
    /// Reads a memory-mapped register.
    fn mmio_read(&mut self, _cx: &mut Ctx<'_>, _window: u8, _offset: u64, _width: Width) -> Result<u64, IoError> {
        Err(IoError::NoSuchRegister)
    }
    /// Writes a memory-mapped register.
    fn mmio_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        _window: u8,
        _offset: u64,
        _width: Width,
        _value: u64,
    ) -> Result<(), IoError> {
        Err(IoError::NoSuchRegister)
    }
    /// When this device next changes by itself (a wire moves, a transfer ends); the run loop never polls earlier.
    fn next_event(&self) -> Option<Tick> {
        None
    }
    /// Advances to `cx.now`, making every change that is due, in bulk.
    fn run_until(&mut self, _cx: &mut Ctx<'_>) {}
    /// The volatile state as bytes (postcard of one serde struct): for the state hash and for save/restore.
    fn save(&self) -> Vec<u8>;
    /// Restores what [`Self::save`] gave.
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError>;
}

/// Serialises a device's volatile state for [`Device::save`].
pub fn save_state<T: serde::Serialize>(state: &T) -> Vec<u8> {
    postcard::to_stdvec(state).expect("a plain struct serialises")
}

/// Deserialises what [`save_state`] gave, for [`Device::restore`].
pub fn restore_state<T: serde::de::DeserializeOwned>(device: &'static str, bytes: &[u8]) -> Result<T, StateError> {
    postcard::from_bytes(bytes).map_err(|error| StateError { device, reason: error.to_string() })
}
