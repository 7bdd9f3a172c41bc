//! The agent's heartbeats: long polls that report the engines and bring the orders.

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_proto::id::ParseIdError;
use ankole_proto::rpc::v1;
use ankole_proto::{Epoch, VolumeId};
use tokio::sync::{mpsc, watch};

use super::AgentArgs;
use super::plan::Wanted;
use crate::managers::{Managers, Patience};

/// How long a manager may hold a heartbeat whose answer would not differ from the last.
const HOLD: Duration = Duration::from_secs(2);
/// A heartbeat is answered after [`HOLD`] at the latest; a second more is a manager that hangs.
/// The total only says when the trouble is logged: heartbeats go on for ever.
const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(3),
    total: Duration::from_secs(10),
};
/// The pause after an answer that cannot be followed, or was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The engines wanted on this node.
pub type Orders = BTreeMap<VolumeId, Wanted>;

/// Why an answer of the managers cannot be followed. None of it is then, so that no engine is
/// stopped because its order was damaged.
#[derive(Debug, thiserror::Error)]
pub enum OrdersError {
    /// Not a volume.
    #[error("the managers' orders: {0}")]
    Volume(#[from] ParseIdError),
    /// Not a port.
    #[error("the managers order volume {volume} to be served at port {port}, which is none")]
    Port {
        /// Whose.
        volume: VolumeId,
        /// As it came.
        port: u32,
    },
}

/// Reports until the supervision ends.
pub(super) async fn heartbeats(
    managers: &Managers,
    config: &AgentArgs,
    mut engines: watch::Receiver<Vec<v1::EngineProcess>>,
    orders: mpsc::Sender<Orders>,
) {
    let instance = format!("{:032x}", rand::random::<u128>());
    let mut seen_revision = 0;
    loop {
        let report = v1::AgentReport {
            node: config.node.to_string(),
            instance: instance.clone(),
            engine_host: config.engine_host.to_string(),
            port_first: config.ports.first.into(),
            port_last: config.ports.last.into(),
            engines: engines.borrow_and_update().clone(),
            seen_revision,
            hold_ms: u32::try_from(HOLD.as_millis()).unwrap_or(0),
        };
        let answer = managers.call(PATIENCE, async |fleet| {
            fleet.agent_heartbeat(report.clone()).await
        });
        let answer = tokio::select! {
            answer = answer => answer,
            // What changed is to be known now, not when the long poll ends.
            changed = engines.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let understood = answer
            .map_err(|error| error.to_string())
            .and_then(|answer| {
                let revision = answer.revision;
                let wanted = wanted(answer).map_err(|error| error.to_string())?;
                Ok((revision, wanted))
            });
        match understood {
            Ok((revision, wanted)) => {
                seen_revision = revision;
                if orders.send(wanted).await.is_err() {
                    return;
                }
            }
            Err(trouble) => {
                tracing::warn!(%trouble, "heartbeat failed; the engines go on as they are");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// What the managers want on this node.
///
/// # Errors
///
/// [`OrdersError`]; then none of it is to be followed.
pub fn wanted(answer: v1::AgentOrders) -> Result<Orders, OrdersError> {
    answer
        .engines
        .into_iter()
        .map(|order| {
            let volume = order.volume_id.parse()?;
            let port = if order.without_target {
                None
            } else {
                let port = u16::try_from(order.port).ok().filter(|port| *port != 0);
                Some(port.ok_or(OrdersError::Port {
                    volume,
                    port: order.port,
                })?)
            };
            let wanted = Wanted {
                epoch: Epoch::from_raw(order.epoch),
                port,
                replace_through: Epoch::from_raw(order.replace_through_epoch),
            };
            Ok((volume, wanted))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(port: u32, without_target: bool) -> v1::EngineOrder {
        v1::EngineOrder {
            volume_id: VolumeId::from_bits(1).to_string(),
            epoch: 3,
            port,
            without_target,
            ..v1::EngineOrder::default()
        }
    }

    fn orders(engines: Vec<v1::EngineOrder>) -> v1::AgentOrders {
        v1::AgentOrders {
            engines,
            ..v1::AgentOrders::default()
        }
    }

    #[test]
    fn orders_are_taken_whole_or_not_at_all() {
        let taken = wanted(orders(vec![order(3260, false)])).unwrap();
        let engine = &taken[&VolumeId::from_bits(1)];
        assert_eq!(
            (engine.epoch, engine.port),
            (Epoch::from_raw(3), Some(3260))
        );
        let taken = wanted(orders(vec![order(0, true)])).unwrap();
        assert_eq!(taken[&VolumeId::from_bits(1)].port, None);
        for bad in [order(0, false), order(65_536, false)] {
            assert!(wanted(orders(vec![order(3260, false), bad])).is_err());
        }
        let mut nameless = order(3260, false);
        nameless.volume_id = "x".to_owned();
        assert!(wanted(orders(vec![nameless])).is_err());
    }
}
