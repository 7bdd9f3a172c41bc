//! INV-4: at least one replica is on record as in sync, always.

use super::super::managers::{Managers, Mode};

pub(in super::super) fn check(managers: &Managers) -> Result<(), String> {
    if managers.with(Mode::InSync).next().is_none() {
        return Err("INV-4: no replica is on record as in sync".to_owned());
    }
    Ok(())
}
