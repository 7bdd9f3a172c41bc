//! INV-4: at least one replica of each volume is on record as in sync, from its first engine on.

use ankole_meta::state::{PhaseKind, ReplicaMode, State};

pub(in super::super) fn check(state: &State) -> Result<(), String> {
    for volume in state.volumes().values() {
        let counts = !matches!(
            volume.phase.kind(),
            PhaseKind::Creating | PhaseKind::Deleting
        );
        if counts && volume.in_mode(ReplicaMode::InSync).next().is_none() {
            let name = &volume.name;
            return Err(format!(
                "INV-4: no replica of {name} is on record as in sync"
            ));
        }
    }
    Ok(())
}
