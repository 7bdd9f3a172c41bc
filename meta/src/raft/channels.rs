//! One connection per address, shared by all calls: making one costs twenty times a call.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint, Error};

use super::timing;

/// Connections to other managers, made when first used and again when they break.
#[derive(Clone, Default)]
pub(crate) struct Channels {
    open: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Channels {
    /// The channel to `HOST:PORT`.
    pub(super) fn to(&self, address: &str) -> Result<Channel, Error> {
        let mut open = self.open.lock();
        if let Some(channel) = open.get(address) {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(timing::CONNECT)
            .tcp_nodelay(true)
            .connect_lazy();
        open.insert(address.into(), channel.clone());
        Ok(channel)
    }

    /// Forgets the addresses that are no member's any more.
    pub(super) fn keep_only(&self, addresses: &[String]) {
        let mut open = self.open.lock();
        open.retain(|address, _| addresses.contains(address));
    }
}
