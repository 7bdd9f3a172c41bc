//! Which records an apply touched. Keys are one byte for the noun and then the id in big-endian
//! order, so that keys sort as the ids do.

use std::collections::BTreeSet;

use ankole_proto::{NodeName, ReplicaId, SnapshotGroupId, SnapshotId, VolumeId};

use super::{Changes, State, record};

/// The key of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// `01`: the group's id and counters.
    Cluster,
    /// `02` and the volume id.
    Volume(VolumeId),
    /// `03` and the snapshot id.
    Snapshot(SnapshotId),
    /// `04` and the node's name.
    Node(NodeName),
    /// `05` and the replica id.
    Doomed(ReplicaId),
    /// `06` and the event's number.
    Event(u64),
    /// `07` and the request's number.
    Request(u64),
    /// `08` and the volume id.
    Reservations(VolumeId),
    /// `09` and the group's id.
    Group(SnapshotGroupId),
}

impl Key {
    /// The bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let with = |noun: u8, id: &[u8]| [&[noun], id].concat();
        match self {
            Self::Cluster => vec![1],
            Self::Volume(id) => with(2, &id.bits().to_be_bytes()),
            Self::Snapshot(id) => with(3, &id.bits().to_be_bytes()),
            Self::Node(name) => with(4, name.as_str().as_bytes()),
            Self::Doomed(id) => with(5, &id.bits().to_be_bytes()),
            Self::Event(number) => with(6, &number.to_be_bytes()),
            Self::Request(number) => with(7, &number.to_be_bytes()),
            Self::Reservations(id) => with(8, &id.bits().to_be_bytes()),
            Self::Group(id) => with(9, &id.bits().to_be_bytes()),
        }
    }

    /// The key in these bytes; `None` when there is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (noun, id) = bytes.split_first()?;
        let wide = || Some(u128::from_be_bytes(id.try_into().ok()?));
        let number = || Some(u64::from_be_bytes(id.try_into().ok()?));
        Some(match noun {
            1 if id.is_empty() => Self::Cluster,
            2 => Self::Volume(VolumeId::from_bits(wide()?)),
            3 => Self::Snapshot(SnapshotId::from_bits(wide()?)),
            4 => Self::Node(std::str::from_utf8(id).ok()?.parse().ok()?),
            5 => Self::Doomed(ReplicaId::from_bits(wide()?)),
            6 => Self::Event(number()?),
            7 => Self::Request(number()?),
            8 => Self::Reservations(VolumeId::from_bits(wide()?)),
            9 => Self::Group(SnapshotGroupId::from_bits(wide()?)),
            _ => return None,
        })
    }
}

/// The records that an apply touched.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeSet<Key>);

impl Touched {
    /// Notes a record that was put or removed.
    pub(super) fn note(&mut self, key: Key) {
        self.0.insert(key);
    }

    /// What the store is to put and remove.
    pub(super) fn changes(self, state: &State) -> Changes {
        let change = |key: Key| (key.encode(), record::encode(state, &key));
        self.0.into_iter().map(change).collect()
    }
}

/// The key of every record of the state, in ascending order.
pub(super) fn all_keys(state: &State) -> Vec<Key> {
    std::iter::once(Key::Cluster)
        .chain(state.volumes.keys().map(|id| Key::Volume(*id)))
        .chain(state.snapshots.keys().map(|id| Key::Snapshot(*id)))
        .chain(state.nodes.keys().map(|name| Key::Node(name.clone())))
        .chain(state.doomed.keys().map(|id| Key::Doomed(*id)))
        .chain(state.events.ring.keys().map(|number| Key::Event(*number)))
        .chain(
            state
                .requests
                .by_number
                .keys()
                .map(|number| Key::Request(*number)),
        )
        .chain(state.reservations.keys().map(|id| Key::Reservations(*id)))
        .chain(state.groups.keys().map(|id| Key::Group(*id)))
        .collect()
}
