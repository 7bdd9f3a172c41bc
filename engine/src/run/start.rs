//! The first orders: nothing begins without them.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{RunArgs, RunError};
use crate::managers::ControlEvent;
use crate::managers::orders::VolumeOrders;

/// How long an engine waits for its orders. It was granted its epoch a moment ago, so managers
/// were there; without any it gives up and the agent tries again.
const ORDERS_WAIT: Duration = Duration::from_secs(30);

/// Waits for orders that know of this engine's epoch.
pub(super) async fn first_orders(
    args: &RunArgs,
    events: &mut mpsc::Receiver<ControlEvent>,
) -> Result<VolumeOrders, RunError> {
    let mut trouble = "they did not answer".to_owned();
    let waiting = async {
        loop {
            match events.recv().await.ok_or(RunError::ControlEnded)? {
                ControlEvent::Orders(first) if first.orders.volume != args.volume => {
                    return Err(RunError::WrongVolume(first.orders.volume));
                }
                // From before our grant, by a manager that is behind.
                ControlEvent::Orders(first) if first.orders.epoch < args.epoch => {
                    trouble = format!("they know of epoch {} only", first.orders.epoch);
                }
                ControlEvent::Orders(first) => return Ok(*first),
                ControlEvent::Trouble(text) => trouble = text,
                ControlEvent::Recorded { .. } | ControlEvent::Kept(_) | ControlEvent::Settled => {}
            }
        }
    };
    match timeout(ORDERS_WAIT, waiting).await {
        Ok(result) => result,
        Err(_) => Err(RunError::NoOrders { trouble }),
    }
}
