//! The keyboard controller and what is plugged into it: an 8042, a PS/2 keyboard, a PS/2 mouse.
//!
//! `controller` is the device on the bus; it owns a `keyboard` and a `mouse`, each a small machine that takes bytes from
//! the host side of its cable and has bytes to send. `keys` is the table of keys.

mod controller;
mod keyboard;
mod keys;
mod mouse;
mod translate;

pub use controller::{I8042, I8042Config, I8042Wires};
pub use keyboard::Stroke;
pub use keys::KeyCode;
pub use mouse::MouseButtons;
