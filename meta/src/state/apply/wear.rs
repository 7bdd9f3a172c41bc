//! Damaged and repaired blocks, and replicas that differ.

use ankole_proto::rpc::v1::{
    LogAnswer, OrderComparisonCommand, RecordComparisonCommand, RecordDamagesCommand,
    RecordRepairsCommand,
};
use ankole_proto::{Epoch, ReplicaId};

use super::{Apply, answer, parse};
use crate::state::record::damages_from;
use crate::state::{Comparison, PhaseKind, Refusal, ReplicaMode, Severity};

impl Apply<'_> {
    pub(super) fn record_damages(
        &mut self,
        c: &RecordDamagesCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        let id: ReplicaId = parse(&c.replica_id)?;
        let damages = damages_from(&c.damages).map_err(Refusal::Invalid)?;
        let replica = volume
            .replicas
            .get_mut(&id)
            .filter(|_| volume.phase.kind() != PhaseKind::Deleting)
            .ok_or(Refusal::UnknownReplica(id))?;
        let (node, before) = (replica.node.clone(), replica.wear.damaged_blocks);
        let more = replica.wear.found(c.damaged_blocks, damages, self.at_ms);
        let worn = replica.wear.is_worn(self.at_ms);
        // Of one that has left the in-sync set nothing is on record, which mends nothing.
        let mended = replica.mode == ReplicaMode::InSync && c.damaged_blocks == 0 && before > 0;
        if more {
            let blocks = c.damaged_blocks;
            let place = c.damages.first().map_or(String::new(), |first| {
                format!(", first layer {} at byte {}", first.layer, first.offset)
            });
            let message = format!("{blocks} blocks of the replica on {node} are damaged{place}");
            self.volume_event(Severity::Warning, "DamageFound", &volume.name, message);
        } else if mended {
            let message = format!("no block of the replica on {node} is damaged any more");
            self.volume_event(Severity::Info, "DamageRepaired", &volume.name, message);
        }
        if more && worn {
            let message = format!("the replica on {node} had too many faults within a day");
            self.volume_event(Severity::Warning, "ReplicaWorn", &volume.name, message);
        }
        Ok(self.put(volume))
    }

    pub(super) fn record_repairs(
        &mut self,
        c: &RecordRepairsCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_of_engine(&c.volume_id, c.epoch)?;
        let id: ReplicaId = parse(&c.replica_id)?;
        let replica = volume
            .replicas
            .get_mut(&id)
            .ok_or(Refusal::UnknownReplica(id))?;
        let epoch = Epoch::from_raw(c.epoch);
        let more = replica.wear.repaired(epoch, c.blocks, self.at_ms);
        if more == 0 {
            return Ok(answer(&volume));
        }
        replica.independent = false;
        let node = replica.node.clone();
        volume.repaired_blocks = volume.repaired_blocks.saturating_add(more);
        let message = format!("{more} bad blocks of the replica on {node} were rewritten");
        self.volume_event(Severity::Warning, "BlocksRepaired", &volume.name, message);
        Ok(self.put(volume))
    }

    /// The next comparison is due; one that was ordered before comes first.
    pub(super) fn order_comparison(
        &mut self,
        c: &OrderComparisonCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume(&c.volume_id)?;
        if volume.comparison.wanted().is_some() || c.request != volume.comparison.request + 1 {
            return Ok(answer(&volume));
        }
        volume.comparison.request = c.request;
        volume.comparison.ordered_at_ms = self.at_ms;
        Ok(self.put(volume))
    }

    pub(super) fn record_comparison(
        &mut self,
        c: &RecordComparisonCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_of_engine(&c.volume_id, c.epoch)?;
        // Another one may have been ordered meanwhile.
        if c.request <= volume.comparison.made || c.request > volume.comparison.request {
            return Ok(answer(&volume));
        }
        let found = c.found.unwrap_or_default();
        let alike = c.alike_replicas.iter().map(|id| parse(id));
        let alike = alike.collect::<Result<Vec<ReplicaId>, Refusal>>()?;
        // Of one that was not compared nobody knows whether it agrees with the others.
        if volume
            .in_mode(ReplicaMode::InSync)
            .all(|(id, _)| alike.contains(&id))
        {
            for id in alike {
                if let Some(one) = volume.replicas.get_mut(&id) {
                    one.independent = one.mode == ReplicaMode::InSync;
                }
            }
        }
        volume.comparison = Comparison {
            made: c.request,
            finished_at_ms: self.at_ms,
            total_bytes: found.total_bytes,
            differing_chunks: found.differing_chunks,
            undecided_chunks: found.undecided_chunks,
            skipped_chunks: found.skipped_chunks,
            ..volume.comparison
        };
        let (differing, undecided) = (found.differing_chunks, found.undecided_chunks);
        let (severity, kind, message) = match (differing, undecided) {
            (0, _) => (
                Severity::Info,
                "ReplicasCompared",
                "its replicas read the same".to_owned(),
            ),
            (_, 0) => (
                Severity::Warning,
                "ReplicasDiffered",
                format!(
                    "{} of its replicas read differently: what most replicas agreed on is kept, \
                     the other replicas are made equal",
                    chunks(differing)
                ),
            ),
            _ => (
                Severity::Error,
                "ReplicasDiffer",
                format!(
                    "{} of its replicas read differently, and nobody can say what is right",
                    chunks(undecided)
                ),
            ),
        };
        let skipped = match found.skipped_chunks {
            0 => String::new(),
            count => format!("; {} could not be compared", chunks(count)),
        };
        let message = format!("{message}{skipped}");
        self.volume_event(severity, kind, &volume.name, message);
        Ok(self.put(volume))
    }
}

fn chunks(count: u64) -> String {
    match count {
        1 => "1 chunk".to_owned(),
        count => format!("{count} chunks"),
    }
}
