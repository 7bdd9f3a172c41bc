//! Persistent reservations on their way to the managers, who keep them for the next engine.
//!
//! One change is on its way at a time. When no manager answers in time the change is void: the
//! initiator is told to try again, and what was kept before is told anew until a manager has taken
//! it, because the change may have come through. Each call has a greater number than the last, so
//! that one which is late replaces nothing that is newer.

use std::time::Duration;

use ankole_proto::rpc::v1;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::control::{ControlConfig, ControlEvent};
use super::{CallError, Managers, Patience};

/// How long an initiator waits for a change: below the time after which its own patience ends. An
/// attempt passes the leader's commit; the total outlasts an election.
const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(2),
    total: Duration::from_secs(5),
};

/// Between two tries to tell anew what was kept before.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);

/// Hands changes to the managers.
#[derive(Debug, Clone)]
pub struct Keeper {
    changes: mpsc::Sender<Bytes>,
}

impl Keeper {
    /// A keeper, and where its changes come out. There is one change at a time.
    pub(super) fn new() -> (Self, mpsc::Receiver<Bytes>) {
        let (changes, receiver) = mpsc::channel(1);
        (Self { changes }, receiver)
    }

    /// Has the managers keep this in place of what was kept before; answered with
    /// [`ControlEvent::Kept`].
    ///
    /// # Errors
    ///
    /// [`Busy`]: another change is on its way, or the engine ends. Nothing was asked for.
    pub fn keep(&self, state: Bytes) -> Result<(), Busy> {
        self.changes.try_send(state).map_err(|_| Busy)
    }
}

/// The managers cannot be asked at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another change is on its way to the managers, or the engine ends")]
pub struct Busy;

/// Takes changes to the managers until the engine ends. With `adopted`, which the managers do not
/// have yet, that is told first.
pub(super) async fn keep_reservations(
    managers: &Managers,
    config: &ControlConfig,
    mut changes: mpsc::Receiver<Bytes>,
    mut adopted: mpsc::Receiver<Adoption>,
    events: mpsc::Sender<ControlEvent>,
) {
    let mut number = 0;
    let mut known = Bytes::new();
    let mut in_doubt = false;
    loop {
        let (state, is_change) = tokio::select! {
            biased;
            Some(adoption) = adopted.recv() => {
                match adoption {
                    Adoption::Known(state) => known = state,
                    Adoption::Untold(state) => (known, in_doubt) = (state, true),
                }
                continue;
            }
            change = changes.recv() => match change {
                Some(state) => (state, true),
                None => return,
            },
            () = sleep(AGAIN_PAUSE), if in_doubt => (known.clone(), false),
        };
        number += 1;
        let result = record(managers, config, number, state.clone()).await;
        let told = result.is_ok();
        if told {
            (known, in_doubt) = (state, false);
        } else if is_change {
            // It may have come through.
            in_doubt = true;
        }
        let event = match (is_change, result) {
            (true, Ok(())) => ControlEvent::Kept(Ok(())),
            (true, Err(error)) => ControlEvent::Kept(Err(error.to_string())),
            (false, Ok(())) => ControlEvent::Settled,
            (false, Err(_)) => continue,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// What the managers have when the engine begins.
#[derive(Debug)]
pub(super) enum Adoption {
    /// This.
    Known(Bytes),
    /// Nothing, but an engine of an earlier version has kept this.
    Untold(Bytes),
}

async fn record(
    managers: &Managers,
    config: &ControlConfig,
    number: u64,
    state: Bytes,
) -> Result<(), CallError> {
    let request = v1::RecordReservationsRequest {
        volume_id: config.volume.to_string(),
        epoch: config.epoch.raw(),
        reservations: state.to_vec(),
        number,
    };
    let call = async |fleet: &mut v1::fleet_client::FleetClient<tonic::transport::Channel>| {
        fleet.record_reservations(request.clone()).await
    };
    managers.call(PATIENCE, call).await.map(drop)
}
