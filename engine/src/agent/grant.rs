//! Asking the managers for an engine's epoch.

use std::time::Duration;

use ankole_proto::rpc::v1;
use ankole_proto::{Epoch, NodeName, VolumeId};

use crate::managers::{CallError, Managers, Patience};

/// An attempt passes the leader's commit, the total outlasts an election. Then the plan begins
/// anew, from orders that may have changed.
const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(3),
    total: Duration::from_secs(10),
};

/// An epoch that was asked for.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) volume: VolumeId,
    /// The epoch of the last engine here, when it and all before it are known to serve no more.
    pub(super) ended: Option<Epoch>,
    pub(super) epoch: Result<Epoch, GrantError>,
}

/// Why an engine has no epoch.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrantError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the managers granted epoch {granted}, which is not above {expected}")]
    Stale { granted: Epoch, expected: Epoch },
}

impl Granted {
    /// Whether the engine of the epoch before is known to be dead, so that nobody needs to wait
    /// for its lease to run out.
    pub(super) fn previous_ended(&self) -> bool {
        match (&self.epoch, self.ended) {
            (Ok(epoch), Some(ended)) => ended.next() == *epoch,
            _ => false,
        }
    }
}

/// Asks for the epoch after `expected`. Each call is one request: its retries are granted the same
/// epoch.
pub(super) async fn grant(
    managers: &Managers,
    node: &NodeName,
    volume: VolumeId,
    expected: Epoch,
) -> Result<Epoch, GrantError> {
    let request = v1::GrantEpochRequest {
        volume_id: volume.to_string(),
        node: node.to_string(),
        expected_epoch: expected.raw(),
        request_id: format!("{:032x}", rand::random::<u128>()),
    };
    let granted = managers
        .call(PATIENCE, async |fleet| {
            fleet.grant_epoch(request.clone()).await
        })
        .await?;
    let granted = Epoch::from_raw(granted.epoch);
    if granted <= expected {
        return Err(GrantError::Stale { granted, expected });
    }
    Ok(granted)
}
