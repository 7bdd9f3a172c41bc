//! Records: the state as it is stored. Each noun has its message in `log.proto`; reading one checks
//! everything that the types promise, because a store file may be damaged or of a newer version.

mod read;
mod write;

use ankole_proto::rpc::v1 as rpc;
use prost::Message;

use super::changes::{Key, all_keys};
use super::{RecordError, Replicated, State};

/// The record under this key; `None` when there is none.
pub(super) fn encode(state: &State, key: &Key) -> Option<Vec<u8>> {
    Some(match key {
        // An untouched group has no record.
        Key::Cluster => Some(write::cluster(state))
            .filter(|record| *record != write::cluster(&State::default()))?
            .encode_to_vec(),
        Key::Volume(id) => write::volume(state.volumes.get(id)?).encode_to_vec(),
        Key::Snapshot(id) => write::snapshot(state.snapshots.get(id)?).encode_to_vec(),
        Key::Node(name) => write::node(state.nodes.get(name)?).encode_to_vec(),
        Key::Doomed(id) => write::doomed(*id, state.doomed.get(id)?).encode_to_vec(),
        Key::Event(number) => write::event(*number, state.events.ring.get(number)?).encode_to_vec(),
        Key::Request(number) => {
            write::request(state.requests.by_number.get(number)?).encode_to_vec()
        }
        Key::Reservations(id) => {
            write::reservations(*id, state.reservations.get(id)?).encode_to_vec()
        }
        Key::Group(id) => write::group(state.groups.get(id)?).encode_to_vec(),
    })
}

/// Every record, in ascending key order.
pub(super) fn encode_all(state: &State) -> Vec<(Vec<u8>, Vec<u8>)> {
    let keys = all_keys(state).into_iter();
    keys.filter_map(|key| Some((key.encode(), encode(state, &key)?)))
        .collect()
}

/// The state with these records.
pub(super) fn decode_all(
    records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<State, RecordError> {
    let mut state = State::default();
    for (key, value) in records {
        decode(&mut state, &key, &value).map_err(|reason| RecordError { key, reason })?;
    }
    Ok(state)
}

fn decode(state: &mut State, key: &[u8], value: &[u8]) -> Result<(), String> {
    let key = Key::decode(key).ok_or("no record has such a key")?;
    match key {
        Key::Cluster => read::cluster(state, &message::<rpc::ClusterRecord>(value)?)?,
        Key::Volume(id) => {
            let volume = read::volume(&message(value)?)?;
            same(volume.id == id)?;
            state.volumes.insert(id, volume);
        }
        Key::Snapshot(id) => {
            let snapshot = read::snapshot(&message(value)?)?;
            same(snapshot.id == id)?;
            state.snapshots.insert(id, snapshot);
        }
        Key::Node(name) => {
            let node = read::node(&message(value)?)?;
            same(node.name == name)?;
            state.nodes.insert(name, node);
        }
        Key::Doomed(id) => {
            state.doomed.insert(id, read::doomed(&message(value)?)?);
        }
        Key::Event(number) => {
            state
                .events
                .ring
                .insert(number, read::event(&message(value)?)?);
        }
        Key::Request(number) => {
            state
                .requests
                .restore(number, read::request(message(value)?));
        }
        Key::Reservations(id) => {
            let record: rpc::ReservationsRecord = message(value)?;
            same(record.volume_id == id.to_string())?;
            state.reservations.insert(id, read::reservations(record));
        }
        Key::Group(id) => {
            let group = read::group(&message(value)?)?;
            same(group.id == id)?;
            state.groups.insert(id, group);
        }
    }
    Ok(())
}

fn message<M: Message + Default>(value: &[u8]) -> Result<M, String> {
    M::decode(value).map_err(|error| error.to_string())
}

fn same(matches: bool) -> Result<(), String> {
    if matches {
        Ok(())
    } else {
        Err("the record is not that of its key".to_owned())
    }
}

/// A node as a command or a record carries it.
pub(super) fn node_from(record: &rpc::NodeRecord) -> Result<super::NodeOnRecord, String> {
    read::node(record)
}

/// A node as a command carries it.
pub(crate) fn node_to(node: &super::NodeOnRecord) -> rpc::NodeRecord {
    write::node(node)
}

impl Replicated for State {
    fn apply(&mut self, index: u64, command: &rpc::LogCommand) -> (rpc::LogAnswer, super::Changes) {
        super::apply::apply(self, index, command)
    }

    fn from_records(
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, RecordError> {
        decode_all(records)
    }

    fn to_records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        encode_all(self)
    }
}

/// An event as it is told and stored.
pub(crate) fn event_to(number: u64, event: &super::Event) -> rpc::Event {
    write::event(number, event)
}

/// A replica's mode in the public contract.
pub(crate) const fn mode_to(mode: super::ReplicaMode) -> rpc::ReplicaMode {
    write::mode(mode)
}

/// A snapshot as it is told.
pub(crate) fn snapshot_view(state: &State, snapshot: &super::Snapshot) -> rpc::Snapshot {
    let volume = state.volumes.get(&snapshot.volume);
    let parent = snapshot
        .layer
        .and_then(|layer| volume?.layers.get(&layer).copied().flatten());
    let branches = snapshot
        .layer
        .and_then(|layer| Some(volume?.children(layer).count()));
    let group = snapshot.group.and_then(|id| state.groups.get(&id));
    let undone = group.is_some_and(|group| !group.is_open());
    let message = match snapshot.state {
        super::SnapshotState::Creating if undone => {
            "its group was undone; it goes when an engine has answered for it"
        }
        super::SnapshotState::Creating if snapshot.group.is_some() => {
            "waits until every volume of its group is sealed"
        }
        super::SnapshotState::Creating => "waits for an engine to take it",
        super::SnapshotState::Ready => "",
        super::SnapshotState::Deleting if branches.is_some_and(|count| count > 1) => {
            "several branches lie on it; it goes when one is left"
        }
        super::SnapshotState::Deleting => "its replicas are merging its layer away",
    };
    let record = write::snapshot(snapshot);
    rpc::Snapshot {
        id: record.id,
        name: record.name,
        volume_id: record.volume_id,
        layer: snapshot
            .layer
            .map(|layer| layer.to_string())
            .unwrap_or_default(),
        parent_layer: parent.map(|layer| layer.to_string()).unwrap_or_default(),
        state: record.state,
        created_at_ms: record.created_at_ms,
        size_bytes: record.size_bytes,
        message: message.to_owned(),
        group_id: record.group_id,
    }
}

/// A setting of the write cache as a command carries it; `None`: none is set.
pub(super) const fn write_cache_from(message: rpc::WriteCache) -> Option<super::WriteCache> {
    match message {
        rpc::WriteCache::Unspecified => None,
        set => Some(read::write_cache(set)),
    }
}

/// Damages as a command carries them.
pub(super) fn damages_from(messages: &[rpc::Damage]) -> Result<Vec<super::Damage>, String> {
    messages.iter().map(read::damage).collect()
}

/// Damages as commands and orders carry them.
pub(crate) fn damages_to(damages: &[super::Damage]) -> Vec<rpc::Damage> {
    damages.iter().map(write::damage).collect()
}
