use proptest::prelude::*;

use super::*;

fn log_ids() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>(), any::<u64>())
        .prop_map(|(term, node, index)| LogId::new(CommittedLeaderId::new(term, node), index))
}

fn memberships() -> impl Strategy<Value = Membership> {
    let voters = proptest::collection::btree_set(any::<u64>(), 1..4);
    let configs = proptest::collection::vec(voters, 1..3);
    (configs, proptest::collection::btree_set(any::<u64>(), 0..3)).prop_map(
        |(configs, learners)| {
            let ids = configs.iter().flatten().chain(&learners);
            let nodes: BTreeMap<u64, BasicNode> = ids
                .map(|&id| (id, BasicNode::new(format!("host-{id}:7000"))))
                .collect();
            Membership::new(configs, nodes)
        },
    )
}

fn entries() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(EntryPayload::Blank),
        proptest::collection::vec(any::<u8>(), 0..200)
            .prop_map(|bytes| EntryPayload::Normal(Proposal::Command(bytes))),
        any::<u128>()
            .prop_map(|bits| EntryPayload::Normal(Proposal::Cluster(ClusterId::from_bits(bits)))),
        memberships().prop_map(EntryPayload::Membership),
    ];
    (log_ids(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

proptest! {
    #[test]
    fn an_entry_reads_back_as_it_was_written(entry in entries()) {
        let bytes = entry_out(&entry).encode_to_vec();
        let read = decode::<rpc::RaftEntry>("log entry", &bytes).and_then(entry_in);
        prop_assert_eq!(read, Ok(entry));
    }

    #[test]
    fn a_stored_membership_reads_back_as_it_was_written(
        log_id in proptest::option::of(log_ids()), membership in memberships()
    ) {
        let stored = StoredMembership::new(log_id, membership);
        prop_assert_eq!(stored_membership_in(stored_membership_out(&stored)), Ok(stored));
    }

    #[test]
    fn a_vote_reads_back_as_it_was_written(term: u64, node: u64, committed: bool) {
        let vote = Vote { leader_id: openraft::LeaderId::new(term, node), committed };
        prop_assert_eq!(vote_in(vote_out(&vote)), vote);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let read = decode::<rpc::RaftEntry>("log entry", &bytes).and_then(entry_in);
        if let Ok(entry) = read {
            let again = entry_out(&entry).encode_to_vec();
            let read = decode::<rpc::RaftEntry>("log entry", &again).and_then(entry_in);
            prop_assert_eq!(read, Ok(entry));
        }
    }
}

fn stored(payload: EntryPayload<TypeConfig>) -> Vec<u8> {
    let log_id = LogId::new(CommittedLeaderId::new(3, 2), 300);
    entry_out(&Entry { log_id, payload }).encode_to_vec()
}

/// The log id of term 3, node 2, index 300: field 1, six bytes.
const LOG_ID: [u8; 9] = [0x0a, 0x07, 0x08, 3, 0x10, 2, 0x18, 0xac, 0x02];

fn after_log_id(rest: &[u8]) -> Vec<u8> {
    [&LOG_ID, rest].concat()
}

#[test]
fn stored_entries_keep_their_bytes() {
    assert_eq!(stored(EntryPayload::Blank), after_log_id(&[0x12, 0]));
    assert_eq!(
        stored(EntryPayload::Normal(Proposal::Command(vec![1, 2, 3]))),
        after_log_id(&[0x1a, 3, 1, 2, 3])
    );
    let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2"))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes);
    assert_eq!(
        stored(EntryPayload::Membership(membership)),
        after_log_id(&[
            0x22, 23, 0x0a, 3, 0x0a, 1, 1, // voters: 1
            0x12, 7, 0x08, 1, 0x12, 3, b'a', b':', b'1', // member 1
            0x12, 7, 0x08, 2, 0x12, 3, b'b', b':', b'2', // member 2
        ])
    );
    let cluster = stored(EntryPayload::Normal(Proposal::Cluster(
        ClusterId::from_bits(0xab),
    )));
    let text = b"000000000000000000000000000000ab";
    assert_eq!(cluster, after_log_id(&[&[0x2a, 32][..], text].concat()));
}

#[test]
fn an_entry_without_its_parts_is_refused() {
    let read = entry_in(rpc::RaftEntry::default());
    assert_eq!(read, Err(CodecError::Missing("log entry", "log id")));
    let read = entry_in(rpc::RaftEntry {
        log_id: Some(rpc::RaftLogId::default()),
        payload: None,
    });
    assert_eq!(read, Err(CodecError::Missing("log entry", "payload")));
}
