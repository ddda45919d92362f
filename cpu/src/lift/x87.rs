//! (family to come)

use super::{Lifted, Lifter};

/// Lifts the family's instructions.
pub fn lift(_l: &mut Lifter<'_>) -> Lifted {
    Lifted::No
}
