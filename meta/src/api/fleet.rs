//! `Fleet`: what the daemons ask.
//!
//! Heartbeats are answered by the leader after it has made sure that it still leads and has applied
//! everything agreed (a new leader's half-applied state would end engines that are to run).

use std::time::Duration;

use ankole_proto::rpc::v1::fleet_client::FleetClient;
use ankole_proto::rpc::v1::fleet_server::Fleet;
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use ankole_proto::{Epoch, VolumeId};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::forward::on_leader;
use super::{Desk, Seat, status, validate};
use crate::reconcile::{NODES_MAX, agent_orders, blockd_orders, engine_orders};
use crate::state::{RESERVATIONS_BYTES_MAX, Refusal, State};

/// The longest that a heartbeat is held.
const HOLD_MS_MAX: u32 = 2000;

/// The most disks, replicas or engines in one report (INV-12).
const REPORTED_MAX: usize = 16 * NODES_MAX;

impl<S: Seat> Desk<S> {
    /// Makes orders until they differ from what the daemon has seen, or the hold is over.
    async fn held<O>(
        &self,
        seen: u64,
        hold_ms: u32,
        make: impl Fn(&State) -> Result<(u64, O), Status> + Send + Sync,
    ) -> Result<O, Status> {
        let hold = Duration::from_millis(hold_ms.min(HOLD_MS_MAX).into());
        let deadline = Instant::now() + hold;
        let (mut changed, mut leads) = (self.seat.changed(), self.seat.leadership());
        loop {
            changed.borrow_and_update();
            let (revision, orders) = self.seat.with_state(&make)?;
            if !leads.borrow_and_update().is_leader {
                return Err(Status::unavailable("this manager leads no more; try again"));
            }
            if revision != seen || seen == 0 {
                return Ok(orders);
            }
            let news = async {
                tokio::select! {
                    alive = changed.changed() => alive,
                    alive = leads.changed() => alive,
                }
            };
            match timeout_at(deadline, news).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Status::unavailable("this manager is stopping")),
                Err(_) => return Ok(orders),
            }
        }
    }

    async fn blockd_here(&self, report: rpc::BlockdReport) -> Result<rpc::BlockdOrders, Status> {
        let stored = report
            .disks
            .iter()
            .map(|disk| disk.replicas.len())
            .sum::<usize>();
        bounded(stored.max(report.disks.len()))?;
        self.seat.read().await?;
        let ours = self.seat.with_state(State::cluster_id).ok_or_else(|| {
            Status::unavailable("the cluster has no id yet; try again in a moment")
        })?;
        if !report.cluster_id.is_empty() && report.cluster_id != ours.to_string() {
            let theirs = validate::reason(&report.cluster_id);
            let text = format!("the disks of this blockd belong to cluster {theirs}, not {ours}");
            return Err(Status::failed_precondition(format!(
                "{text}; give it empty directories"
            )));
        }
        let now = self.reports.now();
        let node = self
            .reports
            .note(|observed| observed.blockd(now, &report))?;
        let make = |state: &State| {
            let orders = blockd_orders(state, &node);
            Ok((orders.revision, orders))
        };
        let orders = self
            .held(report.seen_revision, report.hold_ms, make)
            .await?;
        if orders.revision != report.seen_revision {
            self.reports.note(|observed| {
                if let Some(seen) = observed.blockds.get_mut(&node) {
                    seen.superseded = true;
                }
            });
        }
        Ok(orders)
    }

    async fn agent_here(&self, report: rpc::AgentReport) -> Result<rpc::AgentOrders, Status> {
        bounded(report.engines.len())?;
        self.seat.read().await?;
        let now = self.reports.now();
        let node = self.reports.note(|observed| observed.agent(now, &report))?;
        let make = |state: &State| {
            let orders = agent_orders(state, &node);
            Ok((orders.revision, orders))
        };
        let orders = self
            .held(report.seen_revision, report.hold_ms, make)
            .await?;
        if orders.revision != report.seen_revision {
            self.reports.note(|observed| {
                if let Some(seen) = observed.agents.get_mut(&node) {
                    seen.superseded = true;
                }
            });
        }
        Ok(orders)
    }

    async fn engine_here(&self, report: rpc::EngineReport) -> Result<rpc::EngineOrders, Status> {
        bounded(report.rebuilds.len())?;
        self.seat.read().await?;
        let epoch = Epoch::from_raw(report.epoch);
        let current = self.seat.with_state(|state| {
            state
                .volume_named(&report.volume_id)
                .map(|volume| volume.epoch)
        });
        if current == Some(epoch) {
            let now = self.reports.now();
            self.reports
                .note(|observed| observed.engine(now, &report))?;
        }
        self.engine_orders(
            &report.volume_id,
            report.epoch,
            report.seen_revision,
            report.hold_ms,
        )
        .await
    }

    /// The orders of a volume's engine; an engine of a volume that is gone is fenced.
    async fn engine_orders(
        &self,
        volume: &str,
        epoch: u64,
        seen: u64,
        hold_ms: u32,
    ) -> Result<rpc::EngineOrders, Status> {
        let id: VolumeId = volume
            .parse()
            .map_err(|error: ankole_proto::id::ParseIdError| {
                Status::invalid_argument(error.to_string())
            })?;
        let make = |state: &State| match state.volumes().get(&id) {
            Some(volume) => {
                let orders = engine_orders(state, volume);
                Ok((orders.revision, orders))
            }
            None => {
                let engine = Epoch::from_raw(epoch);
                let gone = Refusal::Fenced {
                    engine,
                    current: Epoch::ZERO,
                };
                Err(status::refused(&gone.to_log()))
            }
        };
        self.held(seen, hold_ms, make).await
    }

    async fn record(&self, request_id: &str, command: Command) -> Result<LogAnswer, Status> {
        let command = LogCommand {
            request_id: request_id.to_owned(),
            at_ms: self.reports.now().wall_ms,
            command: Some(command),
        };
        let answer = self.seat.propose(command).await?;
        answer
            .refusal
            .as_ref()
            .map_or(Ok(()), |refusal| Err(status::refused(refusal)))?;
        Ok(answer)
    }

    async fn grant_here(&self, request: rpc::GrantEpochRequest) -> Result<rpc::EpochGrant, Status> {
        validate::request_id(&request.request_id)?;
        let volume_id = request.volume_id.clone();
        let command = Command::GrantEpoch(rpc::GrantEpochCommand {
            volume_id: request.volume_id,
            node: request.node,
            expected_epoch: request.expected_epoch,
        });
        let answer = self.record(&request.request_id, command).await?;
        let orders = self.engine_orders(&volume_id, answer.epoch, 0, 0).await?;
        Ok(rpc::EpochGrant {
            epoch: answer.epoch,
            orders: Some(orders),
        })
    }

    async fn lost_here(
        &self,
        request: rpc::RecordReplicaLostRequest,
    ) -> Result<rpc::EngineOrders, Status> {
        let (volume_id, epoch) = (request.volume_id, request.epoch);
        let command = Command::ReplicaLost(rpc::ReplicaLostCommand {
            volume_id: volume_id.clone(),
            epoch,
            replica_id: request.replica_id,
            reason: validate::reason(&request.reason),
            by_managers: false,
        });
        self.record("", command).await?;
        self.engine_orders(&volume_id, epoch, 0, 0).await
    }

    async fn in_sync_here(
        &self,
        request: rpc::RecordReplicaInSyncRequest,
    ) -> Result<rpc::EngineOrders, Status> {
        let (volume_id, epoch) = (request.volume_id, request.epoch);
        let command = Command::ReplicaInSync(rpc::ReplicaInSyncCommand {
            volume_id: volume_id.clone(),
            epoch,
            replica_id: request.replica_id,
        });
        self.record("", command).await?;
        self.engine_orders(&volume_id, epoch, 0, 0).await
    }

    async fn task_here(
        &self,
        request: rpc::RecordTaskDoneRequest,
    ) -> Result<rpc::EngineOrders, Status> {
        let (volume_id, epoch) = (request.volume_id, request.epoch);
        let command = Command::TaskDone(rpc::TaskDoneCommand {
            volume_id: volume_id.clone(),
            epoch,
            task_id: request.task_id,
            refusal: validate::reason(&request.refusal),
        });
        self.record("", command).await?;
        self.engine_orders(&volume_id, epoch, 0, 0).await
    }

    async fn reservations_here(
        &self,
        request: rpc::RecordReservationsRequest,
    ) -> Result<rpc::EngineOrders, Status> {
        let (volume_id, epoch) = (request.volume_id, request.epoch);
        let bytes = request.reservations.len();
        if bytes > RESERVATIONS_BYTES_MAX {
            // Before it goes to the log.
            let refusal = Refusal::ReservationsTooLarge { bytes };
            return Err(status::refused(&refusal.to_log()));
        }
        let command = Command::RecordReservations(rpc::RecordReservationsCommand {
            volume_id: volume_id.clone(),
            epoch,
            number: request.number,
            reservations: request.reservations,
        });
        self.record("", command).await?;
        self.engine_orders(&volume_id, epoch, 0, 0).await
    }
}

fn bounded(count: usize) -> Result<(), Status> {
    if count <= REPORTED_MAX {
        return Ok(());
    }
    let text = format!("a report lists at most {REPORTED_MAX} entries, not {count}");
    Err(Status::invalid_argument(text))
}

#[tonic::async_trait]
impl<S: Seat> Fleet for Desk<S> {
    async fn blockd_heartbeat(
        &self,
        request: Request<rpc::BlockdReport>,
    ) -> Result<Response<rpc::BlockdOrders>, Status> {
        on_leader!(self, request, FleetClient.blockd_heartbeat, blockd_here)
    }

    async fn agent_heartbeat(
        &self,
        request: Request<rpc::AgentReport>,
    ) -> Result<Response<rpc::AgentOrders>, Status> {
        on_leader!(self, request, FleetClient.agent_heartbeat, agent_here)
    }

    async fn engine_heartbeat(
        &self,
        request: Request<rpc::EngineReport>,
    ) -> Result<Response<rpc::EngineOrders>, Status> {
        on_leader!(self, request, FleetClient.engine_heartbeat, engine_here)
    }

    async fn grant_epoch(
        &self,
        request: Request<rpc::GrantEpochRequest>,
    ) -> Result<Response<rpc::EpochGrant>, Status> {
        on_leader!(self, request, FleetClient.grant_epoch, grant_here)
    }

    async fn record_replica_lost(
        &self,
        request: Request<rpc::RecordReplicaLostRequest>,
    ) -> Result<Response<rpc::EngineOrders>, Status> {
        on_leader!(self, request, FleetClient.record_replica_lost, lost_here)
    }

    async fn record_replica_in_sync(
        &self,
        request: Request<rpc::RecordReplicaInSyncRequest>,
    ) -> Result<Response<rpc::EngineOrders>, Status> {
        on_leader!(
            self,
            request,
            FleetClient.record_replica_in_sync,
            in_sync_here
        )
    }

    async fn record_task_done(
        &self,
        request: Request<rpc::RecordTaskDoneRequest>,
    ) -> Result<Response<rpc::EngineOrders>, Status> {
        on_leader!(self, request, FleetClient.record_task_done, task_here)
    }

    async fn record_reservations(
        &self,
        request: Request<rpc::RecordReservationsRequest>,
    ) -> Result<Response<rpc::EngineOrders>, Status> {
        on_leader!(
            self,
            request,
            FleetClient.record_reservations,
            reservations_here
        )
    }
}
