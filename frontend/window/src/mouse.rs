//! The host's pointer as the guest's mouse. Where the guest listens to its tablet, its pointer follows the host's over the picture.
//! Else a click captures the pointer, then movement counts and the pointer stays in the middle.
//!
//! Where the window system can lock the pointer, raw motion is used; else (X11) the pointer is put back into the middle
//! whenever it has gone far from there, and its steps count.

use umbra_machine::MouseButtons;
use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::event::{ElementState, MouseButton, MouseScrollDelta};
use winit::window::{CursorGrabMode, Window};

/// How far a touchpad's wheel moves for one notch, in pixels.
const NOTCH: f64 = 40.0;

/// How the pointer is held.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Hold {
    Free,
    /// The guest's tablet has its place.
    Followed,
    /// Raw motion counts.
    Locked,
    /// Steps of the pointer count.
    Centred,
}

/// The mouse.
#[derive(Debug)]
pub struct Mouse {
    hold: Hold,
    /// Where the pointer was last seen.
    last: PhysicalPosition<f64>,
    /// The pointer was put into the middle and has not been seen there yet: what arrives meanwhile was on its way before.
    returns: bool,
    buttons: u8,
    /// Motion and wheel that is less than a count.
    rest: [f64; 3],
}

impl Mouse {
    pub fn new() -> Mouse {
        Mouse { hold: Hold::Free, last: PhysicalPosition::default(), returns: false, buttons: 0, rest: [0.0; 3] }
    }
    /// Where the pointer was last seen.
    pub fn at(&self) -> PhysicalPosition<f64> {
        self.last
    }
    /// Whether the pointer is the guest's, and stays where it is.
    pub fn is_captured(&self) -> bool {
        matches!(self.hold, Hold::Locked | Hold::Centred)
    }
    /// Whether the guest's pointer follows it.
    pub fn is_followed(&self) -> bool {
        self.hold == Hold::Followed
    }
    /// The guest's pointer follows one that is not captured, or no longer does. Whether that is news.
    pub fn follow(&mut self, window: &Window, follow: bool) -> bool {
        let hold = if follow { Hold::Followed } else { Hold::Free };
        let is_news = !self.is_captured() && self.hold != hold;
        if is_news {
            (self.hold, self.buttons, self.rest) = (hold, 0, [0.0; 3]);
            // The guest draws its own.
            window.set_cursor_visible(!follow);
        }
        is_news
    }
    pub fn buttons(&self) -> MouseButtons {
        MouseButtons(self.buttons)
    }
    /// The pointer becomes the guest's.
    pub fn capture(&mut self, window: &Window) {
        (self.buttons, self.rest) = (0, [0.0; 3]);
        self.hold = if window.set_cursor_grab(CursorGrabMode::Locked).is_ok() {
            Hold::Locked
        } else {
            if let Err(error) = window.set_cursor_grab(CursorGrabMode::Confined) {
                tracing::debug!(target: "window", "the pointer cannot be confined: {error}");
            }
            Hold::Centred
        };
        window.set_cursor_visible(false);
        self.centre(window);
    }
    /// No button is down any more.
    pub fn raise_buttons(&mut self) {
        self.buttons = 0;
    }
    /// The pointer is the host's again; all buttons come up.
    pub fn release(&mut self, window: &Window) {
        if let Err(error) = window.set_cursor_grab(CursorGrabMode::None) {
            tracing::debug!(target: "window", "the pointer cannot be freed: {error}");
        }
        window.set_cursor_visible(true);
        (self.hold, self.returns, self.buttons, self.rest) = (Hold::Free, false, 0, [0.0; 3]);
    }
    fn centre(&mut self, window: &Window) {
        let middle = middle(window.inner_size());
        if self.hold != Hold::Centred || self.returns || distance(self.last, middle) < 1.0 {
            return;
        }
        match window.set_cursor_position(middle) {
            Ok(()) => self.returns = true,
            Err(error) => tracing::debug!(target: "window", "the pointer cannot be moved: {error}"),
        }
    }
    /// The pointer is at a place of the window; gives the counts that it moved.
    pub fn moved_to(&mut self, window: &Window, at: PhysicalPosition<f64>) -> Option<[i32; 3]> {
        let size = window.inner_size();
        let moved = self.step_to(at, size);
        if distance(at, middle(size)) > f64::from(size.width.min(size.height)) / 4.0 {
            self.centre(window);
        }
        moved
    }
    fn step_to(&mut self, at: PhysicalPosition<f64>, size: PhysicalSize<u32>) -> Option<[i32; 3]> {
        let from = std::mem::replace(&mut self.last, at);
        if self.hold != Hold::Centred {
            return None;
        }
        if self.returns && distance(at, middle(size)) < 1.0 {
            self.returns = false;
            return None;
        }
        self.count([at.x - from.x, at.y - from.y, 0.0])
    }
    /// Raw motion.
    pub fn moved_by(&mut self, delta: (f64, f64)) -> Option<[i32; 3]> {
        if self.hold == Hold::Locked { self.count([delta.0, delta.1, 0.0]) } else { None }
    }
    /// The wheel, in counts towards the user.
    pub fn wheel(&mut self, delta: MouseScrollDelta) -> Option<[i32; 3]> {
        let away = match delta {
            MouseScrollDelta::LineDelta(_, y) => f64::from(y),
            MouseScrollDelta::PixelDelta(by) => by.y / NOTCH,
        };
        if self.hold == Hold::Free { None } else { self.count([0.0, 0.0, -away]) }
    }
    /// A button; whether it is news for the guest. One that comes up without having gone down for it was the host's: a click that
    /// closed the menu, or that captured the pointer.
    pub fn button(&mut self, button: MouseButton, state: ElementState) -> bool {
        let bit = match button {
            MouseButton::Left => 0,
            MouseButton::Right => 1,
            MouseButton::Middle => 2,
            MouseButton::Back => 3,
            MouseButton::Forward => 4,
            MouseButton::Other(_) => return false,
        };
        let was_down = self.buttons >> bit & 1 != 0;
        match state {
            ElementState::Pressed => self.buttons |= 1 << bit,
            ElementState::Released => self.buttons &= !(1 << bit),
        }
        was_down || state == ElementState::Pressed
    }
    fn count(&mut self, by: [f64; 3]) -> Option<[i32; 3]> {
        for (rest, by) in self.rest.iter_mut().zip(by) {
            *rest += by;
        }
        let counts = self.rest.map(|rest| rest.trunc() as i32);
        for (rest, count) in self.rest.iter_mut().zip(counts) {
            *rest -= f64::from(count);
        }
        (counts != [0; 3]).then_some(counts)
    }
}

fn middle(size: PhysicalSize<u32>) -> PhysicalPosition<f64> {
    PhysicalPosition::new(f64::from(size.width / 2), f64::from(size.height / 2))
}

/// The larger of the ways along the two axes.
fn distance(a: PhysicalPosition<f64>, b: PhysicalPosition<f64>) -> f64 {
    (a.x - b.x).abs().max((a.y - b.y).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_counts_are_kept() {
        let mut mouse = Mouse::new();
        mouse.hold = Hold::Locked;
        assert_eq!(mouse.moved_by((0.6, -0.5)), None);
        assert_eq!(mouse.moved_by((0.6, -0.6)), Some([1, -1, 0]));
        assert_eq!(mouse.wheel(MouseScrollDelta::LineDelta(0.0, 1.0)), Some([0, 0, -1]));
        assert!(mouse.button(MouseButton::Right, ElementState::Pressed));
        assert_eq!(mouse.buttons(), MouseButtons::RIGHT);
    }

    #[test]
    fn only_what_went_down_comes_up() {
        let mut mouse = Mouse::new();
        mouse.hold = Hold::Followed;
        assert!(!mouse.button(MouseButton::Right, ElementState::Released), "went down in the menu");
        assert!(mouse.button(MouseButton::Right, ElementState::Pressed));
        assert!(mouse.button(MouseButton::Right, ElementState::Released));
        assert_eq!(mouse.buttons(), MouseButtons(0));
        assert!(!mouse.button(MouseButton::Other(9), ElementState::Pressed), "no mouse of ours has it");
    }

    #[test]
    fn the_way_back_to_the_middle_is_no_movement() {
        let size = PhysicalSize::new(640, 400);
        let mut mouse = Mouse::new();
        let to = |mouse: &mut Mouse, x, y| mouse.step_to(PhysicalPosition::new(x, y), size);
        assert_eq!(to(&mut mouse, 320.0, 200.0), None, "a free pointer");
        mouse.hold = Hold::Centred;
        assert_eq!(to(&mut mouse, 450.0, 190.0), Some([130, -10, 0]));
        mouse.returns = true;
        assert_eq!(to(&mut mouse, 455.0, 190.0), Some([5, 0, 0]), "was on its way");
        assert_eq!(to(&mut mouse, 320.0, 200.0), None, "back");
        assert_eq!(to(&mut mouse, 320.0, 202.0), Some([0, 2, 0]));
        assert_eq!(mouse.at(), PhysicalPosition::new(320.0, 202.0));
    }
}
