//! The gRPC services of a manager: `Admin` for people and CSI, `Fleet` for the daemons.
//!
//! Owns everything between a request and a log entry: checking input, finding what a name means,
//! choosing nodes and ports, passing calls on to the leader, waiting for effects, and telling the
//! agreed state together with what was reported. Decides nothing that `state` does not check again.
//! Every wait and buffer is bounded (INV-12). Refusals become gRPC statuses in [`status`] only.

mod admin;
mod fleet;
mod forward;
mod reports;
mod seat;
mod status;
mod validate;
mod view;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use ankole_proto::rpc::MESSAGE_BYTES_MAX;
use ankole_proto::rpc::v1::admin_server::AdminServer;
use ankole_proto::rpc::v1::fleet_server::FleetServer;
use tokio::sync::Semaphore;
use tonic::service::Routes;

pub use reports::Reports;
pub use seat::{Group, GroupMember, Seat, SeatError, Turn};

/// How long a call waits for its effect before it answers `DEADLINE_EXCEEDED`: starting an engine
/// after a crash includes waiting for the old one's lease.
const EFFECT_WAIT: Duration = Duration::from_secs(30);

/// The most watchers of one manager (INV-12).
const WATCHERS_MAX: usize = 64;

/// What the services share.
#[derive(Debug)]
struct Desk<S> {
    seat: S,
    reports: Arc<Reports>,
    watchers: Arc<Semaphore>,
}

impl<S: Clone> Clone for Desk<S> {
    fn clone(&self) -> Self {
        Self {
            seat: self.seat.clone(),
            reports: Arc::clone(&self.reports),
            watchers: Arc::clone(&self.watchers),
        }
    }
}

/// `Admin` and `Fleet` over this manager. `reports` is shared with
/// [`crate::reconcile::drive::run`].
pub fn routes<S: Seat>(seat: S, reports: Arc<Reports>) -> Routes {
    let desk = Desk {
        seat,
        reports,
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
    };
    let admin = AdminServer::new(desk.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let fleet = FleetServer::new(desk).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(admin).add_service(fleet)
}
