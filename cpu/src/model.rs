//! Processor models: which instructions exist, and what CPUID says.

use crate::decode::CpuidFeature;

/// A processor model.
#[derive(Clone, Debug)]
pub struct CpuModel {
    name: &'static str,
}

impl CpuModel {
    /// The model with this name, as `--cpu` takes it.
    pub fn by_name(name: &str) -> Option<CpuModel> {
        (name == "max").then_some(CpuModel { name: "max" })
    }
    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// CPUID leaf 1 EAX, which EDX holds after reset.
    pub fn signature(&self) -> u32 {
        0x0080_0f12
    }
    /// Whether the model has every one of `features`.
    pub fn has_all(&self, _features: &[CpuidFeature]) -> bool {
        true
    }
}
