//! What the engines' own comparisons say: in-sync replicas never read differently.

use ankole_meta::state::State;

/// How the reason of a loss begins that a comparison led to (`engine/src/mirror/compare.rs`).
const DIFFERS: &str = "it reads otherwise than most replicas";

pub(in super::super) fn check(state: &State) -> Result<(), String> {
    for volume in state.volumes().values() {
        let name = &volume.name;
        let differing = volume.comparison.differing_chunks;
        if differing > 0 {
            return Err(format!("{differing} chunks of {name} differed"));
        }
        let mut replicas = volume.replicas.iter();
        if let Some((id, one)) = replicas.find(|(_, one)| one.reason.starts_with(DIFFERS)) {
            return Err(format!("replica {id} of {name}: {}", one.reason));
        }
    }
    Ok(())
}
