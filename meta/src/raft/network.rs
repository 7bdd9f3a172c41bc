//! The calls that openraft makes to the other managers. Each has a deadline.

use std::future::Future;
use std::time::Duration;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::raft_client::RaftClient;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, Snapshot};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::channels::Channels;
use super::codec::{self, CodecError};
use super::machine::ClusterCell;
use super::snapshot::{self, SnapshotFile};
use super::{StorageError, StorageIoError, TypeConfig, Vote, timing};

/// Bytes of a snapshot in one part of its stream.
const SNAPSHOT_PART_BYTES: usize = 512 * 1024;
/// Parts read ahead of the network.
const SNAPSHOT_PARTS_AHEAD: usize = 2;
/// Pause before another call to a manager that cannot be reached.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);

type RpcError = RPCError<u64, BasicNode, RaftError<u64>>;
type SnapshotFailure = StreamingError<TypeConfig, Fatal<u64>>;

/// Makes clients for openraft, which asks for a new one with every election and read.
pub(crate) struct Network {
    pub(super) id: u64,
    pub(super) cluster: ClusterCell,
    pub(super) channels: Channels,
}

/// Calls to one manager.
pub(crate) struct Client {
    channel: Result<Channel, NetworkError>,
    from: u64,
    to: u64,
    cluster: ClusterCell,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        let channel = self.channels.to(&node.addr);
        Client {
            channel: channel.map_err(|error| NetworkError::new(&error)),
            from: self.id,
            to: target,
            cluster: self.cluster.clone(),
        }
    }
}

impl Client {
    fn client(&self) -> Result<RaftClient<Channel>, NetworkError> {
        self.channel.clone().map(RaftClient::new)
    }

    fn route(&self) -> Option<rpc::RaftRoute> {
        Some(rpc::RaftRoute {
            from: self.from,
            to: self.to,
            cluster_id: codec::optional_cluster_id_out(self.cluster.get().copied()),
        })
    }
}

/// A call with a deadline, which the receiver knows too.
fn request<T>(message: T, deadline: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline);
    request
}

/// Ends a call at its deadline whatever the transport does.
async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

fn rpc_error(status: &Status) -> RpcError {
    match status.code() {
        // Wait before the next call: it will not be better at once.
        Code::Unavailable | Code::FailedPrecondition | Code::Unimplemented => {
            RPCError::Unreachable(Unreachable::new(status))
        }
        _ => RPCError::Network(NetworkError::new(status)),
    }
}

fn unreadable(error: &CodecError) -> RpcError {
    RPCError::Network(NetworkError::new(error))
}

fn append_out(
    call: &AppendEntriesRequest<TypeConfig>,
    route: Option<rpc::RaftRoute>,
) -> rpc::RaftAppend {
    rpc::RaftAppend {
        route,
        vote: Some(codec::vote_out(&call.vote)),
        previous: call.prev_log_id.as_ref().map(codec::log_id_out),
        entries: call.entries.iter().map(codec::entry_out).collect(),
        committed: call.leader_commit.as_ref().map(codec::log_id_out),
    }
}

fn append_answer_in(
    answer: rpc::RaftAppendAnswer,
) -> Result<AppendEntriesResponse<u64>, CodecError> {
    use rpc::raft_append_answer::Result as Outcome;
    match answer.result {
        Some(Outcome::Accepted(_)) => Ok(AppendEntriesResponse::Success),
        Some(Outcome::Partly(partly)) => Ok(AppendEntriesResponse::PartialSuccess(
            partly.matched.map(codec::log_id_in),
        )),
        Some(Outcome::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
        Some(Outcome::HigherVote(vote)) => {
            Ok(AppendEntriesResponse::HigherVote(codec::vote_in(vote)))
        }
        None => Err(CodecError::Missing("append answer", "result")),
    }
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        call: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let deadline = option.hard_ttl();
        let message = request(append_out(&call, self.route()), deadline);
        let mut client = self.client()?;
        let answer = within(deadline, client.append(message)).await;
        let answer = answer.map_err(|status| rpc_error(&status))?;
        append_answer_in(answer).map_err(|error| unreadable(&error))
    }

    async fn vote(
        &mut self,
        call: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        let deadline = option.hard_ttl();
        let message = rpc::RaftVote {
            route: self.route(),
            vote: Some(codec::vote_out(&call.vote)),
            last_log: call.last_log_id.as_ref().map(codec::log_id_out),
        };
        let mut client = self.client()?;
        let answer = within(deadline, client.vote(request(message, deadline))).await;
        let answer = answer.map_err(|status| rpc_error(&status))?;
        Ok(VoteResponse {
            vote: codec::vote_of(answer.vote, "vote answer").map_err(|error| unreadable(&error))?,
            vote_granted: answer.granted,
            last_log_id: answer.last_log.map(codec::log_id_in),
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, SnapshotFailure> {
        let file = *snapshot.snapshot;
        let length = file.length().map_err(|error| unread(&error))?;
        let start = rpc::RaftSnapshotStart {
            route: self.route(),
            vote: Some(codec::vote_out(&vote)),
            head: Some(snapshot::meta_out(&snapshot.meta)),
            length,
        };
        let mut client = self.client()?;
        let parts = snapshot_parts(start, file);
        let call = within(
            timing::SNAPSHOT,
            client.install_snapshot(request(parts, timing::SNAPSHOT)),
        );
        let answer = tokio::select! {
            answer = call => answer.map_err(|status| stream_error(&status))?,
            closed = cancel => return Err(closed.into()),
        };
        let vote = codec::vote_of(answer.vote, "snapshot answer");
        Ok(SnapshotResponse::new(
            vote.map_err(|error| NetworkError::new(&error))?,
        ))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

fn unread(error: &std::io::Error) -> SnapshotFailure {
    let error: StorageError = StorageIoError::read_snapshot(None, error).into();
    StreamingError::StorageError(error)
}

fn stream_error(status: &Status) -> SnapshotFailure {
    match rpc_error(status) {
        RPCError::Unreachable(unreachable) => unreachable.into(),
        _ => NetworkError::new(status).into(),
    }
}

/// The stream of a snapshot: read by a thread of its own, a few parts ahead of the network. A read
/// that fails cuts the stream short, which the receiver notices by the length.
fn snapshot_parts(
    start: rpc::RaftSnapshotStart,
    file: SnapshotFile,
) -> tokio_stream::wrappers::ReceiverStream<rpc::RaftSnapshotPart> {
    use rpc::raft_snapshot_part::Part;
    let (parts, stream) = tokio::sync::mpsc::channel(SNAPSHOT_PARTS_AHEAD);
    let send = move || {
        let part = |part| rpc::RaftSnapshotPart { part: Some(part) };
        let mut open = parts.blocking_send(part(Part::Start(start))).is_ok();
        let mut offset = 0;
        while open {
            match file.read(offset, SNAPSHOT_PART_BYTES) {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => {
                    offset += bytes.len() as u64;
                    open = parts.blocking_send(part(Part::Data(bytes))).is_ok();
                }
                Err(error) => {
                    tracing::error!(%error, "cannot read the snapshot that is being sent");
                    break;
                }
            }
        }
    };
    tokio::task::spawn_blocking(send);
    tokio_stream::wrappers::ReceiverStream::new(stream)
}
