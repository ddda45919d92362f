//! How a machine's RAM is paged: the limit, the policy, and the swap file. Called by `builder`.

use crate::builder::BuildError;
use crate::config::{MachineConfig, ReplacementPolicy};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::swap::SwapStore;
use umbra_mmu::reclaim::{Freed, Paging};

/// Makes a place for swapped pages.
pub type SwapMaker = Arc<dyn Fn() -> std::io::Result<Box<dyn SwapStore>> + Send + Sync>;

/// What a configuration says, with a swap file that only its owner can read and that has no name; nothing if RAM stays.
pub(crate) fn of(config: &MachineConfig, make: Option<&SwapMaker>) -> Result<Option<Paging>, BuildError> {
    let host = &config.host_memory;
    let Some(limit) = config.paged_limit() else { return Ok(None) };
    let folder = host.swap_dir.clone().unwrap_or_else(|| match std::env::var_os("TMPDIR") {
        None if Path::new("/var/tmp").is_dir() => PathBuf::from("/var/tmp"),
        _ => std::env::temp_dir(),
    });
    let store = match make {
        Some(make) => make(),
        // Made with a name, for its owner alone; the name goes at once. (A file made without one gets everybody's rights.)
        None => tempfile::Builder::new().prefix("umbra-swap-").tempfile_in(&folder).map(|file| {
            let (file, _its_name) = file.into_parts();
            Box::new(file) as Box<dyn SwapStore>
        }),
    };
    let store = store.map_err(|problem| BuildError::Swap { folder, problem })?;
    let policy = match host.replacement {
        ReplacementPolicy::Segmented => Policy::Segmented,
        ReplacementPolicy::Clock => Policy::Clock,
    };
    Ok(Some(Paging { limit: limit.0, policy, store, freed: Freed::Returned }))
}
