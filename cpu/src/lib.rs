//! The processor.

pub mod softfloat;
