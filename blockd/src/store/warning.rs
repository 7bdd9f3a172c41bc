//! What an operator should hear of a disk that still works.

use ankole_proto::rpc::v1::{ReplicaReport, StoredState};

use crate::disk::Space;

/// A disk is told to be filling up when this many reserves are all that is left: 10 % of a small one.
const FILLING_RESERVES: u64 = 5;

/// How much room a disk has for new data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// It still takes new blocks; somebody should make room.
    Filling,
    /// The high-water mark is reached: new blocks are refused.
    None,
}

impl Room {
    /// Of a disk that is this full.
    pub const fn of(space: Space) -> Self {
        let reserve = space.reserve_bytes();
        if space.free_bytes < reserve {
            Self::None
        } else if space.free_bytes < reserve.saturating_mul(FILLING_RESERVES) {
            Self::Filling
        } else {
            Self::Enough
        }
    }
}

/// Everything that is wrong with a disk that works, and what to do; empty when nothing is.
pub(super) fn warning(space: Space, replicas: &[ReplicaReport]) -> String {
    let parts = [room(space), faulted(replicas), damaged(replicas)];
    let told: Vec<String> = parts.into_iter().flatten().collect();
    told.join("; ")
}

/// Adds what is to be said of disks that this daemon was given and does not use.
pub(super) fn add_left_out(warning: &mut String, left_out: &[String]) {
    for reason in left_out {
        if !warning.is_empty() {
            warning.push_str("; ");
        }
        warning.push_str("another disk of this blockd is left out until it is restarted: ");
        warning.push_str(reason);
    }
}

fn room(space: Space) -> Option<String> {
    let free = space.free_bytes >> 20;
    match Room::of(space) {
        Room::Enough => None,
        Room::Filling => Some(format!(
            "filling up: {free} MiB free; delete snapshots or volumes, or move replicas away"
        )),
        Room::None => Some(format!(
            "nearly full: {free} MiB free, only overwrites are taken; delete snapshots or volumes"
        )),
    }
}

fn faulted(replicas: &[ReplicaReport]) -> Option<String> {
    let all: Vec<&ReplicaReport> = replicas
        .iter()
        .filter(|replica| replica.state() == StoredState::Faulted)
        .collect();
    let first = all.first()?;
    Some(format!(
        "{} of {} replicas faulted, such as {}: {}",
        all.len(),
        replicas.len(),
        first.id,
        first.message
    ))
}

fn damaged(replicas: &[ReplicaReport]) -> Option<String> {
    let all: Vec<u64> = replicas
        .iter()
        .map(|replica| replica.damaged_blocks)
        .filter(|blocks| *blocks > 0)
        .collect();
    (!all.is_empty()).then(|| {
        format!(
            "{} blocks of {} replicas unreadable or failing their checksums: the disk may be failing",
            all.iter().sum::<u64>(),
            all.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn space(capacity_bytes: u64, free_bytes: u64) -> Space {
        Space {
            capacity_bytes,
            free_bytes,
        }
    }

    #[test]
    fn the_room_of_small_and_large_disks() {
        for (capacity, reserve) in [(10 << 30, (10 << 30) / 50), (4 << 40, 1 << 30)] {
            let room = |free| Room::of(space(capacity, free));
            assert_eq!(room(capacity), Room::Enough);
            assert_eq!(room(5 * reserve), Room::Enough);
            assert_eq!(room(5 * reserve - 1), Room::Filling);
            assert_eq!(room(reserve), Room::Filling);
            assert_eq!(room(reserve - 1), Room::None);
            assert_eq!(room(0), Room::None);
        }
    }

    fn replica(id: &str) -> ReplicaReport {
        ReplicaReport {
            id: id.to_owned(),
            state: StoredState::Ready.into(),
            ..ReplicaReport::default()
        }
    }

    #[test]
    fn a_disk_with_room_and_sound_replicas_has_no_warning() {
        let told = warning(space(10 << 30, 5 << 30), &[replica("a"), replica("b")]);
        assert_eq!(told, "");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let faulted = ReplicaReport {
            state: StoredState::Faulted.into(),
            message: "a sync: Input/output error".to_owned(),
            ..replica("b")
        };
        let damaged = ReplicaReport {
            damaged_blocks: 3,
            ..replica("c")
        };
        let told = warning(
            space(10 << 30, 100 << 20),
            &[replica("a"), faulted, damaged],
        );
        assert_eq!(
            told,
            "nearly full: 100 MiB free, only overwrites are taken; delete snapshots or volumes; \
             1 of 3 replicas faulted, such as b: a sync: Input/output error; \
             3 blocks of 1 replicas unreadable or failing their checksums: the disk may be failing"
        );
        let told = warning(space(10 << 30, 900 << 20), &[]);
        assert!(told.starts_with("filling up: 900 MiB free"), "{told}");
    }
}
