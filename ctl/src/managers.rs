//! Calls to the managers: any of them takes any call, so the first that answers is used.

use std::time::Duration;

use ankole_proto::rpc::v1::admin_client::AdminClient;
use anyhow::{Context, anyhow};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::cli::ManagerArgs;
use crate::dev;

/// How long one manager may take to accept a connection before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two rounds through all managers: an election takes one to two seconds.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A connection to whichever manager answers.
pub(crate) struct Managers {
    addresses: Vec<String>,
    deadline: Instant,
    timeout: Duration,
    next: usize,
}

impl Managers {
    /// The managers named on the command line, in the environment, or of the dev cluster.
    pub(crate) fn new(args: &ManagerArgs) -> anyhow::Result<Self> {
        let mut addresses = args.addresses.clone();
        if addresses.is_empty()
            && let Ok(list) = std::env::var("ANKOLE_MANAGERS")
        {
            addresses = list.split(',').map(|a| a.trim().to_owned()).collect();
            addresses.retain(|address| !address.is_empty());
        }
        if addresses.is_empty() {
            addresses = dev::manager_addresses()?;
        }
        Ok(Self::at(addresses, Duration::from_secs(args.timeout)))
    }

    /// The managers at these addresses, to be asked for at most `timeout` in all.
    pub(crate) fn at(addresses: Vec<String>, timeout: Duration) -> Self {
        Self {
            addresses,
            deadline: Instant::now() + timeout,
            timeout,
            next: 0,
        }
    }

    async fn connect(&mut self) -> anyhow::Result<AdminClient<Channel>> {
        let address = &self.addresses[self.next % self.addresses.len()];
        self.next += 1;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address:?} is no manager address; write HOST:PORT"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.timeout);
        Ok(AdminClient::new(endpoint.connect_lazy()))
    }

    /// Carries out one call, going from manager to manager while none answers. The call is made
    /// anew each time; a mutation must carry the same request id in each.
    pub(crate) async fn call<T, F, R>(&mut self, mut call: F) -> anyhow::Result<T>
    where
        F: FnMut(AdminClient<Channel>) -> R,
        R: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        loop {
            let client = self.connect().await?;
            let answer = tokio::time::timeout_at(self.deadline, call(client)).await;
            let status = match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(self.gave_up("no answer")),
            };
            if status.code() != Code::Unavailable {
                return Err(explain(&status));
            }
            if Instant::now() + RETRY_PAUSE >= self.deadline {
                return Err(self.gave_up(status.message()));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn gave_up(&self, last: &str) -> anyhow::Error {
        anyhow!(
            "no manager at {} answered within {} s ({last}); check that they run, or name them \
             with --manager HOST:PORT",
            self.addresses.join(", "),
            self.timeout.as_secs()
        )
    }
}

/// A manager's refusal in words. The managers' messages say what to do.
fn explain(status: &Status) -> anyhow::Error {
    let message = status.message();
    if message.is_empty() {
        anyhow!("{}", status.code())
    } else {
        anyhow!("{message}")
    }
}

/// A request id for one command: retries of it act once.
pub(crate) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_is_told_in_the_managers_words_and_not_asked_for_again() {
        // As the managers' test of the limit has it.
        let message =
            "volume \"data\" has 254 sealed layers, the most there may be; delete a snapshot";
        let addresses = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let mut managers = Managers::at(addresses, Duration::from_secs(60));
        let mut calls = 0;
        let refused = managers.call(|_| {
            calls += 1;
            async { Err::<tonic::Response<()>, _>(Status::resource_exhausted(message)) }
        });
        let error = refused.await.unwrap_err();
        assert_eq!((format!("{error:#}").as_str(), calls), (message, 1));
    }
}
