//! Passing calls on: any manager takes any call, and the leader carries it out.

use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use super::{Managers, timing};
use crate::state::Replicated;

/// The header that counts how often a call has been passed on.
pub const HOPS_HEADER: &str = "ankole-hops";
/// How often it may be: managers that disagree about who leads must not pass it round for ever.
pub const HOPS_MAX: u32 = 2;

/// Where a call is to be carried out.
#[derive(Debug, Clone)]
pub enum Route {
    /// By this manager: it leads.
    Here,
    /// By another: make the same call there, after [`mark_forwarded`].
    Leader(Channel),
}

/// No manager to carry out a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// None was elected within the time that a call waits for one.
    #[error("the managers have no leader")]
    NoLeader,
    /// The call was passed on too often: the managers are about to elect a new leader.
    #[error("the managers do not agree about who leads")]
    TooManyHops,
    /// The leader's address cannot be used.
    #[error("the leader's address is not valid")]
    BadAddress,
}

impl From<RouteError> for tonic::Status {
    fn from(error: RouteError) -> Self {
        Self::unavailable(format!("{error}: try again with the same request id"))
    }
}

fn hops(metadata: &MetadataMap) -> u32 {
    let header = metadata
        .get(HOPS_HEADER)
        .and_then(|hops| hops.to_str().ok());
    header.map_or(0, |hops| hops.parse().unwrap_or(HOPS_MAX))
}

/// Counts one more hop in a call that is about to be passed on. `received` is the metadata of the
/// call that came in.
pub fn mark_forwarded<T>(received: &MetadataMap, call: &mut tonic::Request<T>) {
    let hops = hops(received).saturating_add(1);
    call.metadata_mut().insert(HOPS_HEADER, hops.into());
}

impl<S: Replicated> Managers<S> {
    /// Finds out who carries out a call that came in with this metadata; waits a few seconds for a
    /// leader when there is none.
    ///
    /// # Errors
    ///
    /// When there is no leader in time, or the call has been passed on too often.
    pub async fn route(&self, received: &MetadataMap) -> Result<Route, RouteError> {
        let deadline = Instant::now() + timing::LEADER;
        let mut leadership = self.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            if now.is_leader {
                return Ok(Route::Here);
            }
            if let Some(leader) = now.leader {
                if hops(received) >= HOPS_MAX {
                    return Err(RouteError::TooManyHops);
                }
                let channel = self.inner.channels.to(&leader.address);
                return channel
                    .map(Route::Leader)
                    .map_err(|_| RouteError::BadAddress);
            }
            match timeout_at(deadline, leadership.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(RouteError::NoLeader),
            }
        }
    }

    /// The channel to the leader when that is another manager; `None` when this one leads or none
    /// is known. Does not wait.
    pub fn leader_channel(&self) -> Option<Channel> {
        let now = self.leadership().borrow().clone();
        let leader = now.leader.filter(|_| !now.is_leader)?;
        self.inner.channels.to(&leader.address).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hop_is_counted_and_nonsense_counts_as_too_many() {
        let mut call = tonic::Request::new(());
        for passed in 1..=3 {
            let received = call.metadata().clone();
            mark_forwarded(&received, &mut call);
            assert_eq!(hops(call.metadata()), passed);
        }
        call.metadata_mut().insert(
            HOPS_HEADER,
            tonic::metadata::MetadataValue::from_static("x"),
        );
        assert_eq!(hops(call.metadata()), HOPS_MAX);
    }
}
