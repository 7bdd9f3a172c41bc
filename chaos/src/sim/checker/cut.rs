//! The snapshots of a group are of one moment, whatever was written to its volumes meanwhile.

use std::collections::BTreeMap;

use ankole_meta::state::{SnapshotState, State};
use ankole_proto::{SnapshotId, VolumeId};

use super::super::history::Bounds;
use super::super::world::Model;
use super::views::Views;

/// `shown`: one replica of each volume; the others are alike.
pub(in super::super) fn check(
    shown: &BTreeMap<VolumeId, Views>,
    state: &State,
    models: &BTreeMap<VolumeId, Model>,
    groups: &[Vec<(VolumeId, SnapshotId)>],
) -> Result<(), String> {
    for group in groups {
        let mut both = Bounds::default();
        for (volume, snapshot) in group {
            let (Some(model), Some(views)) = (models.get(volume), shown.get(volume)) else {
                continue;
            };
            let bounds = bounds_of(views, state, model, *snapshot)
                .map_err(|error| format!("snapshot {snapshot} of a group: {error}"))?;
            both = both.and(bounds);
        }
        if !both.is_possible() {
            return Err(format!(
                "the snapshots {group:?} are of no one moment: {both:?}"
            ));
        }
    }
    Ok(())
}

/// What one snapshot says of the moment; nothing when it is not there any more.
fn bounds_of(
    views: &Views,
    state: &State,
    model: &Model,
    snapshot: SnapshotId,
) -> Result<Bounds, String> {
    let mut bounds = Bounds::default();
    let record = state.snapshots().get(&snapshot);
    let record = record.filter(|one| one.state == SnapshotState::Ready);
    let done = model.snapshots.get(&snapshot).and_then(|taken| taken.end);
    let (Some(record), Some(done)) = (record, done) else {
        return Ok(bounds);
    };
    let sectors = record
        .layer
        .and_then(|layer| views.sectors(layer, record.size));
    for (sector, bytes) in sectors.into_iter().flatten() {
        let says = model.history.bounds(sector, &bytes, done);
        bounds = bounds.and(says.map_err(|unexplained| unexplained.to_string())?);
    }
    Ok(bounds)
}
