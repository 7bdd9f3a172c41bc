use ankole_proto::rpc::v1::{Replica, ScrubProgress, Volume};
use serde::Serialize;

use super::comparison::ComparisonView;
use super::damage::DamageView;
use super::snapshot::LayerUsage;
use super::{eta, left, or_dash, plain, time};
use crate::output::Row;
use crate::size;

#[derive(Debug, Serialize)]
pub(crate) struct VolumeView {
    id: String,
    name: String,
    size_bytes: u64,
    used_bytes: u64,
    replica_count: u32,
    state: String,
    health: String,
    epoch: u64,
    node: String,
    portal: String,
    iqn: String,
    url: String,
    initiators: u32,
    head_layer: String,
    message: String,
    revision: u64,
    created_at_ms: u64,
    write_cache: String,
    rebuild_bytes_per_second: u64,
    chap_user: String,
    chap_mutual_user: String,
    source_snapshot_id: String,
    repaired_blocks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<ComparisonView>,
    pub(crate) replicas: Vec<ReplicaView>,
}

impl From<Volume> for VolumeView {
    fn from(volume: Volume) -> Self {
        let state = plain(volume.state().as_str_name(), "VOLUME_STATE_");
        let health = plain(volume.health().as_str_name(), "HEALTH_");
        let write_cache = plain(volume.write_cache().as_str_name(), "WRITE_CACHE_");
        let target = volume.target.unwrap_or_default();
        let url = if target.portal.is_empty() {
            String::new()
        } else {
            format!("iscsi://{}/{}/0", target.portal, target.iqn)
        };
        Self {
            id: volume.id,
            name: volume.name,
            size_bytes: volume.size_bytes,
            used_bytes: volume.used_bytes,
            replica_count: volume.replica_count,
            state,
            health,
            epoch: volume.epoch,
            node: volume.node,
            portal: target.portal,
            iqn: target.iqn,
            url,
            initiators: volume.initiators,
            head_layer: volume.head_layer,
            message: volume.message,
            revision: volume.revision,
            created_at_ms: volume.created_at_ms,
            write_cache,
            rebuild_bytes_per_second: volume.rebuild_bytes_per_second,
            chap_user: volume.chap_user,
            chap_mutual_user: volume.chap_mutual_user,
            source_snapshot_id: volume.source_snapshot_id,
            repaired_blocks: volume.repaired_blocks,
            comparison: volume.comparison.map(ComparisonView::from),
            replicas: volume.replicas.into_iter().map(ReplicaView::from).collect(),
        }
    }
}

impl VolumeView {
    /// The bad blocks of all replicas that are listed one by one.
    pub(crate) fn damages(&self) -> Vec<DamageView> {
        let replicas = self.replicas.iter();
        replicas.flat_map(|one| one.damages.clone()).collect()
    }

    /// How many bad blocks are not listed.
    pub(crate) fn unlisted_damages(&self) -> u64 {
        let unlisted =
            |one: &ReplicaView| one.damaged_blocks.saturating_sub(one.damages.len() as u64);
        self.replicas.iter().map(unlisted).sum()
    }

    /// What each in-sync replica takes for each of its layers.
    pub(crate) fn usage(&self) -> impl Iterator<Item = (&str, LayerUsage)> {
        let in_sync = self.replicas.iter().filter(|one| one.mode == "in-sync");
        in_sync.flat_map(|replica| {
            replica.layers.iter().map(|layer| {
                let usage = LayerUsage {
                    node: replica.node.clone(),
                    used_bytes: layer.used_bytes,
                    reclaimable_bytes: layer.reclaimable_bytes,
                };
                (layer.layer.as_str(), usage)
            })
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl Row for VolumeView {
    const COLUMNS: &'static [&'static str] = &[
        "NAME", "SIZE", "USED", "STATE", "HEALTH", "REPLICAS", "NODE", "URL", "MESSAGE",
    ];

    fn cells(&self) -> Vec<String> {
        let in_sync = self
            .replicas
            .iter()
            .filter(|replica| replica.mode == "in-sync")
            .count();
        vec![
            self.name.clone(),
            size::show(self.size_bytes),
            size::show(self.used_bytes),
            self.state.clone(),
            self.health.clone(),
            format!("{in_sync}/{}", self.replica_count),
            or_dash(&self.node),
            or_dash(&self.url),
            or_dash(&self.message),
        ]
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ReplicaView {
    id: String,
    node: String,
    disk_id: String,
    mode: String,
    used_bytes: u64,
    message: String,
    damaged_blocks: u64,
    repaired_blocks: u64,
    resummed_blocks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuild: Option<RebuildView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scrub: Option<ScrubView>,
    layers: Vec<LayerView>,
    damages: Vec<DamageView>,
}

impl ReplicaView {
    /// What deleting all snapshots would give back.
    fn reclaimable_bytes(&self) -> u64 {
        self.layers
            .iter()
            .map(|layer| layer.reclaimable_bytes)
            .sum()
    }
}

#[derive(Debug, Serialize)]
struct LayerView {
    layer: String,
    used_bytes: u64,
    reclaimable_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ScrubView {
    done_bytes: u64,
    total_bytes: u64,
    bytes_per_second: u64,
    findings: u64,
    started_at_ms: u64,
    finished_at_ms: u64,
    eta_seconds: Option<u64>,
}

impl From<ScrubProgress> for ScrubView {
    fn from(scrub: ScrubProgress) -> Self {
        Self {
            done_bytes: scrub.done_bytes,
            total_bytes: scrub.total_bytes,
            bytes_per_second: scrub.bytes_per_second,
            findings: scrub.findings,
            started_at_ms: scrub.started_at_ms,
            finished_at_ms: scrub.finished_at_ms,
            eta_seconds: eta(scrub.done_bytes, scrub.total_bytes, scrub.bytes_per_second)
                .filter(|_| scrub.finished_at_ms == 0),
        }
    }
}

impl ScrubView {
    fn cell(&self) -> String {
        let findings = match self.findings {
            0 => "nothing found".to_owned(),
            1 => "1 bad block".to_owned(),
            count => format!("{count} bad blocks"),
        };
        if self.finished_at_ms > 0 {
            return format!("{}, {findings}", time::utc(self.finished_at_ms));
        }
        format!(
            "{} of {}, {}/s{}, {findings}",
            size::show(self.done_bytes),
            size::show(self.total_bytes),
            size::show(self.bytes_per_second),
            left(self.eta_seconds),
        )
    }
}

#[derive(Debug, Serialize)]
struct RebuildView {
    done_bytes: u64,
    total_bytes: u64,
    bytes_per_second: u64,
    eta_seconds: Option<u64>,
}

impl From<Replica> for ReplicaView {
    fn from(replica: Replica) -> Self {
        Self {
            mode: plain(replica.mode().as_str_name(), "REPLICA_MODE_"),
            rebuild: replica.rebuild.map(|progress| RebuildView {
                done_bytes: progress.done_bytes,
                total_bytes: progress.total_bytes,
                bytes_per_second: progress.bytes_per_second,
                eta_seconds: eta(
                    progress.done_bytes,
                    progress.total_bytes,
                    progress.bytes_per_second,
                ),
            }),
            scrub: replica.scrub.map(ScrubView::from),
            layers: replica
                .layers
                .into_iter()
                .map(|layer| LayerView {
                    layer: layer.layer,
                    used_bytes: layer.used_bytes,
                    reclaimable_bytes: layer.reclaimable_bytes,
                })
                .collect(),
            damages: replica
                .damages
                .into_iter()
                .map(|damage| DamageView::new(&replica.node, damage))
                .collect(),
            damaged_blocks: replica.damaged_blocks,
            repaired_blocks: replica.repaired_blocks,
            resummed_blocks: replica.resummed_blocks,
            id: replica.id,
            node: replica.node,
            disk_id: replica.disk_id,
            used_bytes: replica.used_bytes,
            message: replica.message,
        }
    }
}

impl Row for ReplicaView {
    const COLUMNS: &'static [&'static str] = &[
        "REPLICA",
        "NODE",
        "MODE",
        "USED",
        "RECLAIMABLE",
        "REPAIRED",
        "REBUILD",
        "SCRUB",
        "MESSAGE",
    ];

    fn cells(&self) -> Vec<String> {
        let rebuild = self.rebuild.as_ref().map_or("-".to_owned(), |progress| {
            format!(
                "{} of {}, {}/s{}",
                size::show(progress.done_bytes),
                size::show(progress.total_bytes),
                size::show(progress.bytes_per_second),
                left(progress.eta_seconds),
            )
        });
        vec![
            self.id.clone(),
            self.node.clone(),
            self.mode.clone(),
            size::show(self.used_bytes),
            size::show(self.reclaimable_bytes()),
            self.repaired_blocks.to_string(),
            rebuild,
            self.scrub.as_ref().map_or("-".to_owned(), ScrubView::cell),
            or_dash(&self.message),
        ]
    }
}

#[cfg(test)]
mod tests {
    use ankole_proto::rpc::v1::{DamagedBlock, Flaw, LayerUsage};

    use super::*;

    fn damaged() -> Volume {
        let bad = DamagedBlock {
            layer: "00000000000000aa".to_owned(),
            snapshot: "monday".to_owned(),
            offset: 8192,
            length: 4096,
            flaw: Flaw::Mismatch.into(),
            found_at_ms: 951_782_400_000,
        };
        let layer = |layer: &str, reclaimable_bytes| LayerUsage {
            layer: layer.to_owned(),
            used_bytes: 4 << 20,
            reclaimable_bytes,
        };
        Volume {
            replicas: vec![
                Replica {
                    node: "n1".to_owned(),
                    ..Replica::default()
                },
                Replica {
                    node: "n2".to_owned(),
                    damaged_blocks: 20,
                    resummed_blocks: 3,
                    damages: vec![bad],
                    layers: vec![layer("aa", 1 << 20), layer("bb", 1 << 19)],
                    ..Replica::default()
                },
            ],
            ..Volume::default()
        }
    }

    #[test]
    fn bad_blocks_are_listed_with_layer_and_offset_in_the_table_and_in_json() {
        let view = VolumeView::from(damaged());
        let table = crate::output::table(&view.damages()).to_string();
        let row: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(
            row.join(" "),
            "n2 00000000000000aa monday 8192 4096 mismatch 2000-02-29 00:00:00Z"
        );
        assert_eq!(view.unlisted_damages(), 19);
        let json = serde_json::to_value(&view).unwrap();
        let bad = &json["replicas"][1]["damages"][0];
        assert_eq!(
            (&bad["offset"], &bad["length"]),
            (&8192.into(), &4096.into())
        );
        assert_eq!(bad["flaw"], "mismatch");
        assert_eq!(json["replicas"][0]["damages"], serde_json::json!([]));
        assert_eq!(json["replicas"][1]["resummed_blocks"], 3);
    }

    #[test]
    fn a_replica_has_a_cell_for_each_column_and_one_of_them_is_what_can_be_reclaimed() {
        let view = VolumeView::from(damaged());
        let cells = view.replicas[1].cells();
        assert_eq!(cells.len(), ReplicaView::COLUMNS.len());
        let at = ReplicaView::COLUMNS
            .iter()
            .position(|one| *one == "RECLAIMABLE");
        assert_eq!(cells[at.unwrap()], "1.5 MiB");
    }
}
