//! Which replicas' layers a report tells the space of.
//!
//! Nothing is decided by it, and it is the longest part of a report: with hundreds of full replicas
//! on a node one message would not hold it. So each report tells it of some, by turns, and the
//! managers keep what they were told last.

use ankole_proto::rpc::v1::DiskReport;

/// Of how many replicas: 255 layers each take less than 3 MiB.
const USAGE_TOLD_MAX: usize = 256;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct UsageTurns {
    next: usize,
}

impl UsageTurns {
    /// Leaves the space out of a report but for those whose turn it is.
    pub(super) fn thin(&mut self, disks: &mut [DiskReport]) {
        let count = disks.iter().map(|disk| disk.replicas.len()).sum::<usize>();
        if count <= USAGE_TOLD_MAX {
            return;
        }
        let first = self.next % count;
        let replicas = disks.iter_mut().flat_map(|disk| &mut disk.replicas);
        for (at, replica) in replicas.enumerate() {
            let behind = (at + count - first) % count;
            if behind >= USAGE_TOLD_MAX {
                replica.usage.clear();
            }
        }
        self.next = (first + USAGE_TOLD_MAX) % count;
    }
}

#[cfg(test)]
mod tests {
    use ankole_proto::rpc::MESSAGE_BYTES_MAX;
    use ankole_proto::rpc::v1::{BlockdReport, Damage, LayerUsage, ReplicaReport, ScrubProgress};
    use prost::Message;

    use super::*;

    /// As long as a replica's report may be: with 255 layers, and one in twenty with a list of damage.
    fn full(number: usize) -> ReplicaReport {
        let layers: Vec<String> = (0..255)
            .map(|at| format!("{:016x}", u64::MAX - at))
            .collect();
        let usage = layers.iter().map(|layer| LayerUsage {
            layer: layer.clone(),
            used_bytes: 1 << 40,
            reclaimable_bytes: 1 << 40,
        });
        let damages = layers.iter().take(64).map(|layer| Damage {
            layer: layer.clone(),
            offset: 1 << 40,
            flaw: 2,
            found_at_ms: 1 << 41,
        });
        ReplicaReport {
            id: format!("{number:032x}"),
            volume_id: format!("{number:032x}"),
            state: 1,
            epoch: 1 << 20,
            used_bytes: 1 << 40,
            usage: usage.collect(),
            size_bytes: 1 << 40,
            scrub: Some(ScrubProgress {
                done_bytes: 1 << 40,
                total_bytes: 1 << 40,
                bytes_per_second: 1 << 30,
                started_at_ms: 1 << 41,
                finished_at_ms: 1 << 41,
                ..ScrubProgress::default()
            }),
            damaged_blocks: 64,
            resummed_blocks: 1 << 20,
            standstill: "x".repeat(if number.is_multiple_of(20) { 400 } else { 0 }),
            damages: damages.filter(|_| number.is_multiple_of(20)).collect(),
            layers,
            ..ReplicaReport::default()
        }
    }

    /// On two disks.
    fn disks(replicas: &[ReplicaReport]) -> Vec<DiskReport> {
        let (first, second) = replicas.split_at(replicas.len() / 3);
        let disk = |replicas: &[ReplicaReport]| DiskReport {
            replicas: replicas.to_vec(),
            ..DiskReport::default()
        };
        vec![disk(first), disk(second)]
    }

    fn told(disks: &[DiskReport]) -> Vec<usize> {
        let replicas = disks.iter().flat_map(|disk| &disk.replicas);
        let told = replicas
            .enumerate()
            .filter(|(_, replica)| !replica.usage.is_empty());
        told.map(|(at, _)| at).collect()
    }

    #[test]
    fn a_report_of_thousands_of_full_replicas_fits_into_a_message() {
        let replicas: Vec<ReplicaReport> = (0..2_800).map(full).collect();
        let mut disks = disks(&replicas);
        let whole = disks.iter().map(Message::encoded_len).sum::<usize>();
        assert!(whole > MESSAGE_BYTES_MAX, "{whole} bytes need no turns");
        UsageTurns::default().thin(&mut disks);
        let report = BlockdReport {
            disks,
            ..BlockdReport::default()
        };
        let bytes = report.encoded_len();
        assert!(bytes < MESSAGE_BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn each_has_its_turn_and_the_rest_is_always_told() {
        let count = 2 * USAGE_TOLD_MAX + 10;
        let one = ReplicaReport {
            usage: vec![LayerUsage::default()],
            layers: vec!["1".to_owned()],
            ..ReplicaReport::default()
        };
        let replicas = vec![one; count];
        let mut turns = UsageTurns::default();
        let mut times = vec![0; count];
        for _ in 0..3 {
            let mut disks = disks(&replicas);
            turns.thin(&mut disks);
            let told = told(&disks);
            assert_eq!(told.len(), USAGE_TOLD_MAX);
            for at in told {
                times[at] += 1;
            }
            let mut rest = disks.iter().flat_map(|disk| &disk.replicas);
            assert!(rest.all(|replica| replica.layers.len() == 1));
        }
        assert!(times.iter().all(|times| *times >= 1), "{times:?}");
    }

    #[test]
    fn few_are_told_whole_each_time() {
        let replicas: Vec<ReplicaReport> = (0..USAGE_TOLD_MAX).map(full).collect();
        let mut turns = UsageTurns::default();
        for _ in 0..2 {
            let mut disks = disks(&replicas);
            turns.thin(&mut disks);
            assert_eq!(told(&disks).len(), USAGE_TOLD_MAX);
        }
    }
}
