//! The managers' addresses: one channel each, kept, and the turn among them.

use std::time::Duration;

use ankole_proto::rpc::MESSAGE_BYTES_MAX;
use ankole_proto::rpc::v1::fleet_client::FleetClient;
use ankole_proto::rpc::v1::{BlockdOrders, BlockdReport};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a connection to a manager may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What a call may take beyond the time the managers hold it.
const CALL_GRACE: Duration = Duration::from_secs(3);
/// The pause after the first manager that could not answer.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The pause once none has answered for a while: a returning leader is found within this time.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An address that no manager can have.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is not a manager's address: expected HOST:PORT")]
pub struct AddressError {
    /// The address as given.
    pub address: String,
    /// What is wrong with it.
    pub source: tonic::transport::Error,
}

/// Whether this can be a manager's address.
///
/// # Errors
///
/// [`AddressError`].
pub(super) fn check(address: &str) -> Result<(), AddressError> {
    endpoint(address).map(|_| ())
}

fn endpoint(address: &str) -> Result<Endpoint, AddressError> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|source| AddressError {
            address: address.to_owned(),
            source,
        })?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
}

/// The managers that this daemon reports to. Any of them takes any call.
#[derive(Debug)]
pub(super) struct Managers {
    managers: Vec<(String, FleetClient<Channel>)>,
    /// Whose turn it is: stays with the one that answers.
    turn: usize,
    pause: Duration,
}

impl Managers {
    /// Prepares a channel to each address; connects when first used. Inside a tokio runtime only.
    ///
    /// # Errors
    ///
    /// [`AddressError`] for the first address that is none.
    pub(super) fn new(addresses: &[String]) -> Result<Self, AddressError> {
        let managers = addresses
            .iter()
            .map(|address| {
                let client = FleetClient::new(endpoint(address)?.connect_lazy())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX);
                Ok((address.clone(), client))
            })
            .collect::<Result<_, AddressError>>()?;
        Ok(Self {
            managers,
            turn: 0,
            pause: PAUSE_MIN,
        })
    }

    /// Reports to the manager whose turn it is.
    ///
    /// # Errors
    ///
    /// Its status; then the next one has the turn, after [`Managers::pause`].
    pub(super) async fn heartbeat(&mut self, report: BlockdReport) -> Result<BlockdOrders, Status> {
        let deadline = Duration::from_millis(u64::from(report.hold_ms)) + CALL_GRACE;
        let Some((address, client)) = self.managers.get_mut(self.turn) else {
            return Err(Status::unavailable("no manager is known"));
        };
        let call = client.blockd_heartbeat(report);
        let answer = match tokio::time::timeout(deadline, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "{address} did not answer within {} ms",
                deadline.as_millis()
            ))),
        };
        match &answer {
            Ok(_) => self.pause = PAUSE_MIN,
            Err(status) => {
                tracing::debug!(manager = %address, code = ?status.code(), message = status.message(),
                    "heartbeat failed");
                self.turn = (self.turn + 1) % self.managers.len();
            }
        }
        answer
    }

    /// How long to wait before the next try after a failure; grows with each.
    pub(super) fn pause(&mut self, code: Code) -> Duration {
        let pause = self.pause;
        self.pause = match code {
            // Waiting longer does not mend these; a human does.
            Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => PAUSE_MAX,
            _ => (pause * 2).min(PAUSE_MAX),
        };
        pause
    }
}
