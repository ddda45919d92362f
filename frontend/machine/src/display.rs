//! The screen of a machine, from any thread and at any time, running or not.
//!
//! ```no_run
//! # fn main() -> Result<(), umbra_machine::BuildError> {
//! let machine = umbra_machine::Machine::builder().kernel_file("vmlinuz").build()?;
//! let display = machine.display();
//! let frame = display.frame();
//! println!("{} × {}", frame.width, frame.height);
//! # Ok(()) }
//! ```
//!
//! Only the registers are copied under the board's lock; drawing reads display memory while the guest runs.

use crate::board::SharedBoard;
use crate::time::GuestClock;
use std::sync::Arc;
use umbra_devices::vga::Shown;
use umbra_mmu::video::VideoMemory;

pub use umbra_devices::vga::render::{Change, Frame, Renderer};
pub use umbra_devices::vga::text::{TextCell, TextScreen, unicode};

/// Looks at a machine's screen.
#[derive(Clone)]
pub struct DisplayHandle {
    pub(crate) board: Arc<SharedBoard>,
    pub(crate) clock: Arc<GuestClock>,
}

impl DisplayHandle {
    /// The picture now. Empty if the machine has no display adapter.
    pub fn frame(&self) -> Frame {
        let mut renderer = Renderer::default();
        self.update(&mut renderer);
        renderer.into_frame()
    }
    /// Brings a renderer's picture up to date; costs little when nothing changed.
    pub fn update(&self, renderer: &mut Renderer) -> Change {
        self.shown().map_or(Change::None, |(shown, memory)| renderer.update(&shown, &memory))
    }
    /// The text screen; `None` in graphics modes.
    pub fn text(&self) -> Option<TextScreen> {
        let (shown, memory) = self.shown()?;
        umbra_devices::vga::text::text(&shown, &memory)
    }
    fn shown(&self) -> Option<(Shown, Arc<VideoMemory>)> {
        let board = self.board.lock();
        let now = self.clock.host_driven_now().unwrap_or(board.now());
        board.shown(now)
    }
}
