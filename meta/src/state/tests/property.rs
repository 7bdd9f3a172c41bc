use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::{Epoch, VolumeId};
use proptest::prelude::*;

use super::*;
use crate::state::{Phase, ReplicaMode, Replicated, SnapshotState, State};

fn any_command() -> impl Strategy<Value = Command> {
    let volume = || 1..=2_u128;
    let replica = || 11..=24_u128;
    let id = || 1..=4_u128;
    let node = || prop::sample::select(vec!["n1", "n2", "n3"]);
    prop_oneof![
        2 => volume().prop_map(|v| create(v, "a")),
        1 => volume().prop_map(|v| create(v, "b")),
        6 => (volume(), 1..=3_u128).prop_map(|(v, r)| created(v, 10 * v + r)),
        4 => (volume(), node(), 1..=2_u32).prop_map(|(v, n, p)| attach(v, n, p)),
        2 => volume().prop_map(detach),
        4 => (volume(), node(), 0..4_u64).prop_map(|(v, n, e)| grant(v, n, e)),
        2 => (volume(), node()).prop_map(|(v, n)| ended(v, n)),
        4 => (volume(), 0..4_u64, replica()).prop_map(|(v, e, r)| lost(v, e, r)),
        4 => (volume(), replica()).prop_map(|(v, r)| rebuild(v, r)),
        4 => (volume(), 0..4_u64, replica()).prop_map(|(v, e, r)| in_sync(v, e, r)),
        4 => (volume(), id(), id()).prop_map(|(v, s, n)| snapshot(v, s, &format!("s{n}"))),
        8 => (volume(), 0..4_u64, 1..6_u64, any::<bool>())
            .prop_map(|(v, e, t, no)| task_done(v, e, t, if no { "no" } else { "" })),
        3 => (volume(), id()).prop_map(|(v, s)| revert(v, s)),
        2 => id().prop_map(delete_snapshot),
        2 => id().prop_map(layer_gone),
        1 => volume().prop_map(delete),
        2 => (volume(), replica(), any::<bool>()).prop_map(|(v, r, a)| gone(v, r, a)),
        1 => (volume(), node()).prop_map(|(v, n)| worker(v, n)),
        2 => (volume(), replica(), replica(), 1..=5_u128)
            .prop_map(|(v, o, n, at)| replace(v, o, n, at)),
        2 => (volume(), 1..=4_u64).prop_map(|(v, gib)| expand(v, gib << 30)),
        2 => (volume(), 0..=5_u32, any::<bool>(), any::<bool>()).prop_map(|(v, count, off, chap)| {
            let change = rpc::UpdateVolumeCommand { change_chap: true, ..update(v, count) };
            let mut change = if chap { with_chap(change) } else { change };
            change.rebuild_bytes_per_second = (count > 2).then(|| u64::from(count - 3) << 20);
            change.set_write_cache(if off { rpc::WriteCache::Off } else { rpc::WriteCache::On });
            Command::UpdateVolume(change)
        }),
        1 => volume().prop_map(scrub),
        1 => volume().prop_map(restart),
        2 => (volume(), replica(), 1..=5_u128).prop_map(|(v, r, n)| add(v, r, n)),
        3 => (volume(), replica()).prop_map(|(v, r)| remove(v, r)),
        2 => (volume(), replica(), 0..3_u64).prop_map(|(v, r, n)| damaged(v, r, n)),
        2 => (volume(), 0..4_u64, replica(), 0..4_u64)
            .prop_map(|(v, e, r, n)| repaired(v, e, r, n)),
        2 => (volume(), node(), 1..=2_u32).prop_map(|(v, n, p)| take(v, n, p)),
        4 => (id(), id(), id(), id(), any::<bool>()).prop_map(|(g, one, other, n, both)| {
            let members = [(1, one), (2, other)];
            snapshot_group(g, &members[..1 + usize::from(both)], &format!("s{n}"))
        }),
        3 => id().prop_map(hold),
        6 => (id(), 0..4_u64, 0..4_u64).prop_map(|(g, one, other)| {
            release(g, &[(1, one), (2, other)])
        }),
        1 => id().prop_map(undo),
        2 => (volume(), 0..4_u64, 0..4_u64, 0..3_usize)
            .prop_map(|(v, e, n, bytes)| reserve(v, e, n, bytes)),
        2 => (id(), 1..=3_usize).prop_map(|(s, count)| clone(2, "b", s, &[11, 12, 13][..count])),
        1 => (volume(), replica()).prop_map(|(v, r)| give_up(v, r)),
    ]
}

/// What must hold whatever is proposed.
fn check(state: &State, epochs: &mut BTreeMap<VolumeId, Epoch>, before: &State) {
    for (id, volume) in state.volumes() {
        if let Some(old) = before.volumes().get(id) {
            assert!(volume.size >= old.size, "a volume never shrinks");
            let in_sync = |volume: &Volume| volume.in_mode(ReplicaMode::InSync).count();
            assert!(in_sync(volume) + 1 >= in_sync(old) || volume.phase == Phase::Deleting);
        }
        let nodes: BTreeSet<_> = volume.live().map(|(_, one)| &one.node).collect();
        assert_eq!(nodes.len(), volume.live().count(), "two replicas on a node");
        assert!(volume.size_wanted() >= volume.size);
    }
    let mut names = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (id, volume) in state.volumes() {
        assert!(
            names.insert(&volume.name),
            "two volumes are named {}",
            volume.name
        );
        if let Some(node) = volume.phase.node() {
            assert!(
                ports.insert((node, volume.port)),
                "two targets share a port"
            );
        }
        let epoch = epochs.entry(*id).or_default();
        assert!(volume.epoch >= *epoch, "INV-1");
        *epoch = volume.epoch;
        let with_data = matches!(
            volume.phase,
            Phase::Detached | Phase::Attached(_) | Phase::Detaching(_)
        );
        assert!(
            !with_data || volume.in_mode(ReplicaMode::InSync).count() > 0,
            "INV-4"
        );
        assert_eq!(
            volume.children(volume.head).count(),
            0,
            "INV-7: the head is the top"
        );
        assert!(volume.layers.len() <= 255, "INV-7");
        for start in volume.layers.keys() {
            let mut layer = Some(*start);
            for _ in 0..=volume.layers.len() {
                layer = layer.and_then(|layer| volume.layers[&layer]);
            }
            assert_eq!(layer, None, "INV-7: a cycle");
        }
        for snapshot in state.snapshots_of(*id) {
            let sealed = snapshot
                .layer
                .is_some_and(|layer| volume.layers.contains_key(&layer));
            let waits = sealed && snapshot.group.is_some();
            assert!(waits || sealed != (snapshot.state == SnapshotState::Creating));
        }
        for replica in volume.replicas.values() {
            let creating = replica.mode == ReplicaMode::Creating;
            assert!(replica.source.is_none() || creating || volume.origin.is_some());
        }
        let making = volume.phase == Phase::Creating;
        if let Some(origin) = volume.origin.filter(|_| making) {
            let source = &state.volumes()[&origin.volume];
            assert!(
                source.layers.contains_key(&origin.layer),
                "what is shared is kept"
            );
            assert_ne!(source.phase, Phase::Deleting);
        }
    }
    check_groups(state, before);
    for id in state.reservations().keys() {
        assert!(state.volumes().contains_key(id), "reservations of nothing");
    }
    let numbers: Vec<u64> = state.events().after(0).map(|(number, _)| number).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "events have a gap"
    );
}

/// Never is a group with a missing member ready, never does a member of an undone one stay.
fn check_groups(state: &State, before: &State) {
    for (id, snapshot) in state.snapshots() {
        let Some(group) = snapshot.group else {
            continue;
        };
        let was = before.snapshots().get(id).map(|one| one.state);
        let becomes_ready = snapshot.state == SnapshotState::Ready
            && was.is_some_and(|was| was == SnapshotState::Creating);
        if becomes_ready {
            let members = before.groups()[&group].members.values();
            let ready = |one: &crate::state::Snapshot| one.state == SnapshotState::Ready;
            for member in members {
                assert!(state.snapshots().get(&member.snapshot).is_some_and(ready));
            }
        }
        match state.groups().get(&group) {
            Some(open) if open.is_open() => assert_eq!(snapshot.state, SnapshotState::Creating),
            Some(undone) => {
                let member = undone.members.get(&snapshot.volume);
                let waits = member.is_some_and(|one| {
                    one.snapshot == *id && state.volumes()[&snapshot.volume].task_waits(one.task)
                });
                assert!(
                    waits || snapshot.state == SnapshotState::Deleting,
                    "it stays"
                );
            }
            None => assert_ne!(snapshot.state, SnapshotState::Creating),
        }
    }
    for group in state.groups().values() {
        for (volume, member) in &group.members {
            let volume = &state.volumes()[volume];
            let waits = volume.task_waits(member.task);
            assert!(waits != member.sealed, "a member waits or has sealed");
            assert!(state.snapshots().contains_key(&member.snapshot));
        }
    }
}

proptest! {
    #[test]
    fn any_log_keeps_the_invariants_and_makes_the_same_bytes(
        commands in prop::collection::vec((any_command(), 0..6_u8), 1..120),
    ) {
        let mut log = Log::default();
        let mut epochs = BTreeMap::new();
        for (command, request) in commands {
            let request = if request < 2 { format!("r{request}") } else { String::new() };
            let before = log.state.clone();
            log.act_as(&request, command);
            check(&log.state, &mut epochs, &before);
        }
        let records = log.state.to_records();
        prop_assert_eq!(&records, &log.stored.into_iter().collect::<Vec<_>>());
        let read = State::from_records(&mut records.clone().into_iter());
        prop_assert_eq!(read.expect("readable"), log.state);
        let mut again = State::default();
        for (index, entry) in log.entries.iter().enumerate() {
            again.apply(index as u64 + 1, entry);
        }
        prop_assert_eq!(again.to_records(), records, "INV-11");
    }

    #[test]
    fn damaged_records_are_refused_without_a_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut records = attached().state.to_records();
        let record = at.index(records.len());
        let byte = byte.index(records[record].1.len());
        records[record].1[byte] = value;
        let _ = State::from_records(&mut records.into_iter());
    }
}
