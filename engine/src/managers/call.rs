//! One call, to whichever manager answers.

use std::cell::Cell;
use std::time::Duration;

use ankole_proto::rpc::v1::fleet_client::FleetClient;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::ManagerAddress;

/// The pause after every manager was tried once, and how far it grows by doubling: short enough
/// that a new leader is found within its first tenths of a second, long enough to leave a cluster
/// without one in peace.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The managers, and the one that answered last. One per thread of calls.
#[derive(Debug)]
pub struct Managers {
    members: Vec<(ManagerAddress, FleetClient<Channel>)>,
    current: Cell<usize>,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// With one manager. More than the time it may hold a long poll.
    pub attempt: Duration,
    /// With all of them together.
    pub total: Duration,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A manager said no, and another would say the same.
    #[error("the managers refused: {} ({:?})", .0.message(), .0.code())]
    Refused(Box<Status>),
    /// No manager answered in time, or none had a leader. Whether the call took effect is unknown.
    #[error("no manager answered within {within_ms} ms, the last said: {last}")]
    Unreachable {
        /// The deadline that passed.
        within_ms: u128,
        /// By whom and why the last attempt failed.
        last: String,
    },
}

impl Managers {
    /// Channels to all of them; none connects before it is used. `None` without an address.
    pub fn new(addresses: &[ManagerAddress]) -> Option<Self> {
        let members: Vec<_> = addresses
            .iter()
            .map(|address| (address.clone(), FleetClient::new(address.channel())))
            .collect();
        (!members.is_empty()).then_some(Self {
            members,
            current: Cell::new(0),
        })
    }

    /// Makes the call, to one manager after the other until one answers or the time is over. The
    /// call must be one that may be repeated.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call<T>(
        &self,
        patience: Patience,
        call: impl AsyncFn(&mut FleetClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, CallError> {
        let deadline = Instant::now() + patience.total;
        let (mut pause, mut tried) = (PAUSE_MIN, 0);
        loop {
            let index = self.current.get() % self.members.len();
            let (address, client) = &self.members[index];
            let until = deadline.min(Instant::now() + patience.attempt);
            let last = match timeout_at(until, call(&mut client.clone())).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) if is_final(status.code()) => {
                    return Err(CallError::Refused(Box::new(status)));
                }
                Ok(Err(status)) => format!("{address}: {}", status.message()),
                Err(_) => format!("{address}: no answer in time"),
            };
            // Another task may have moved on from this manager already.
            if self.current.get() % self.members.len() == index {
                self.current.set((index + 1) % self.members.len());
            }
            tried += 1;
            let mut resume = Instant::now();
            if tried % self.members.len() == 0 {
                resume += pause;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            if resume >= deadline {
                return Err(CallError::Unreachable {
                    within_ms: patience.total.as_millis(),
                    last,
                });
            }
            tokio::time::sleep_until(resume).await;
        }
    }
}

/// Whether every manager would give this answer.
const fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated
    )
}
