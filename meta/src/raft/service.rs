//! The calls that other managers make. What comes in is checked before openraft sees it: a call
//! for another manager or from another cluster is refused, and so is what cannot be read.

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::rpc::v1::raft_server::Raft;
use openraft::error::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{BasicNode, Snapshot};
use tonic::{Request, Response, Status, Streaming};

use super::codec::{self, CodecError};
use super::machine::ClusterCell;
use super::snapshot::{self, SnapshotFile};
use super::{SnapshotMeta, TypeConfig, Vote};

/// The greatest snapshot that is taken in: far above any state that fits into memory.
const SNAPSHOT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// See the module.
pub(crate) struct RaftService {
    pub(super) id: u64,
    pub(super) raft: openraft::Raft<TypeConfig>,
    pub(super) cluster: ClusterCell,
}

fn unreadable(error: &CodecError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped<E: std::error::Error>(error: RaftError<u64, E>) -> Status {
    Status::unavailable(error.to_string())
}

impl RaftService {
    fn check(&self, route: Option<rpc::RaftRoute>) -> Result<(), Status> {
        let route = route.ok_or_else(|| Status::invalid_argument("the call lacks its route"))?;
        if route.to != self.id {
            return Err(Status::failed_precondition(format!(
                "this is manager {}, not manager {}: check the addresses given with --peer",
                self.id, route.to
            )));
        }
        let theirs = codec::optional_cluster_id_in(&route.cluster_id);
        let theirs = theirs.map_err(|error| unreadable(&error))?;
        match (theirs, self.cluster.get()) {
            (Some(theirs), Some(&ours)) if theirs != ours => {
                Err(Status::failed_precondition(format!(
                    "manager {} is of cluster {theirs}, this one of cluster {ours}",
                    route.from
                )))
            }
            _ => Ok(()),
        }
    }

    async fn receive(
        &self,
        start: &rpc::RaftSnapshotStart,
        mut parts: Streaming<rpc::RaftSnapshotPart>,
    ) -> Result<SnapshotFile, Status> {
        use rpc::raft_snapshot_part::Part;
        if start.length > SNAPSHOT_BYTES_MAX {
            return Err(Status::resource_exhausted("the snapshot is too large"));
        }
        let file = *self
            .raft
            .begin_receiving_snapshot()
            .await
            .map_err(stopped)?;
        let mut offset = 0;
        while let Some(part) = parts.message().await? {
            let Some(Part::Data(bytes)) = part.part else {
                return Err(Status::invalid_argument(
                    "a part of the snapshot has no data",
                ));
            };
            let next = offset + bytes.len() as u64;
            if next > start.length {
                return Err(Status::invalid_argument("more data than announced"));
            }
            let target = file.clone();
            blocking(move || target.write(offset, &bytes).map_err(io_failed)).await?;
            offset = next;
        }
        if offset != start.length {
            return Err(Status::data_loss("the snapshot's stream ended early"));
        }
        Ok(file)
    }

    async fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<rpc::RaftSnapshotAnswer, Status> {
        // Checked here, where a damaged one can still be refused: openraft would stop at it.
        let checked = file.clone();
        blocking(move || {
            let contents = snapshot::read_contents(&checked);
            let contents = contents.map_err(|error| Status::data_loss(error.to_string()))?;
            match contents.meta() == meta {
                true => Ok(meta),
                false => Err(Status::data_loss("it is not the snapshot announced")),
            }
        })
        .await
        .map(|meta| Snapshot {
            meta,
            snapshot: Box::new(file),
        })
        .map(|snapshot| self.raft.install_full_snapshot(vote, snapshot))?
        .await
        .map(|answer| rpc::RaftSnapshotAnswer {
            vote: Some(codec::vote_out(&answer.vote)),
        })
        .map_err(|error: Fatal<u64>| Status::unavailable(error.to_string()))
    }
}

fn io_failed(error: std::io::Error) -> Status {
    Status::internal(error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Status::unavailable("this manager is stopping")),
    }
}

fn append_in(call: rpc::RaftAppend) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let entries = call.entries.into_iter().map(codec::entry_in);
    Ok(AppendEntriesRequest {
        vote: codec::vote_of(call.vote, "append call")?,
        prev_log_id: call.previous.map(codec::log_id_in),
        entries: entries.collect::<Result<_, _>>()?,
        leader_commit: call.committed.map(codec::log_id_in),
    })
}

fn append_answer_out(answer: AppendEntriesResponse<u64>) -> rpc::RaftAppendAnswer {
    use rpc::raft_append_answer::Result as Outcome;
    let result = match answer {
        AppendEntriesResponse::Success => Outcome::Accepted(rpc::RaftAccepted {}),
        AppendEntriesResponse::PartialSuccess(matched) => Outcome::Partly(rpc::RaftPartly {
            matched: matched.as_ref().map(codec::log_id_out),
        }),
        AppendEntriesResponse::Conflict => Outcome::Conflict(rpc::RaftConflict {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(codec::vote_out(&vote)),
    };
    rpc::RaftAppendAnswer {
        result: Some(result),
    }
}

/// Whether the group that these metrics are of exists, and who is in it.
pub(super) fn members_of(metrics: &openraft::RaftMetrics<u64, BasicNode>) -> Vec<u64> {
    let nodes = metrics.membership_config.membership().nodes();
    nodes.map(|(&id, _)| id).collect()
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn hello(
        &self,
        request: Request<rpc::RaftHello>,
    ) -> Result<Response<rpc::RaftHelloAnswer>, Status> {
        let route = request.into_inner().route;
        let to = route.ok_or_else(|| Status::invalid_argument("the call lacks its route"))?;
        // The cluster is not compared: the answer tells it.
        self.check(Some(rpc::RaftRoute {
            cluster_id: String::new(),
            ..to
        }))?;
        let founded = self.raft.is_initialized().await;
        let founded = founded.map_err(|error| Status::unavailable(error.to_string()))?;
        let members = members_of(&self.raft.metrics().borrow());
        Ok(Response::new(rpc::RaftHelloAnswer {
            id: self.id,
            founded,
            cluster_id: codec::optional_cluster_id_out(self.cluster.get().copied()),
            members,
        }))
    }

    async fn append(
        &self,
        request: Request<rpc::RaftAppend>,
    ) -> Result<Response<rpc::RaftAppendAnswer>, Status> {
        let mut call = request.into_inner();
        self.check(call.route.take())?;
        let call = append_in(call).map_err(|error| unreadable(&error))?;
        let answer = self.raft.append_entries(call).await.map_err(stopped)?;
        Ok(Response::new(append_answer_out(answer)))
    }

    async fn vote(
        &self,
        request: Request<rpc::RaftVote>,
    ) -> Result<Response<rpc::RaftVoteAnswer>, Status> {
        let call = request.into_inner();
        self.check(call.route)?;
        let vote = codec::vote_of(call.vote, "vote call").map_err(|error| unreadable(&error))?;
        let call = VoteRequest::new(vote, call.last_log.map(codec::log_id_in));
        let answer = self.raft.vote(call).await.map_err(stopped)?;
        Ok(Response::new(rpc::RaftVoteAnswer {
            vote: Some(codec::vote_out(&answer.vote)),
            granted: answer.vote_granted,
            last_log: answer.last_log_id.as_ref().map(codec::log_id_out),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<rpc::RaftSnapshotPart>>,
    ) -> Result<Response<rpc::RaftSnapshotAnswer>, Status> {
        use rpc::raft_snapshot_part::Part;
        let mut parts = request.into_inner();
        let Some(Part::Start(mut start)) = parts.message().await?.and_then(|part| part.part) else {
            return Err(Status::invalid_argument(
                "the snapshot's stream has no start",
            ));
        };
        self.check(start.route.take())?;
        let vote = codec::vote_of(start.vote, "snapshot call");
        let vote = vote.map_err(|error| unreadable(&error))?;
        let head = start.head.take();
        let head = head.ok_or(CodecError::Missing("snapshot call", "head"));
        let meta = head.and_then(snapshot::meta_in);
        let meta = meta.map_err(|error| unreadable(&error))?;
        let file = self.receive(&start, parts).await?;
        self.install(vote, meta, file).await.map(Response::new)
    }
}
