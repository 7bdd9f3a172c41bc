//! Sequences of almost right PDUs.

use proptest::prelude::*;

use super::*;

/// Headers that are almost right: a valid one with some bytes changed, or any bytes at all.
fn any_header() -> impl Strategy<Value = [u8; 48]> {
    let near = FIRST..FIRST + 4;
    let valid = prop_oneof![
        (0_u32..6, near.clone(), 0_u8..4).prop_map(|(t, n, s)| command(READ_10, t, n, s)),
        (0_u32..6, near.clone(), 0_u8..9).prop_map(|(t, n, s)| command(WRITE_10, t, n, s)),
        (0_u32..6, 0_u32..8, 0_u32..3, 0_u32..4, any::<bool>())
            .prop_map(|(t, r, n, o, f)| data_out(t, r, n, o * 512, f)),
        (0_u32..6, 0_u32..6, 0_u8..10).prop_map(|(t, r, f)| management(f, t, r)),
        (
            prop::sample::select(vec![0_u8, 4, 6, 0x40, 0x44, 0x46]),
            any::<u8>(),
            0_u32..6,
            near
        )
            .prop_map(|(o, f, t, n)| simple(o, f, t, n)),
    ];
    let changes = prop::collection::vec((0_usize..HEADER_BYTES, any::<u8>()), 0..3);
    let changed = (valid, changes).prop_map(|(mut header, changes)| {
        for (at, byte) in changes {
            header[at] = byte;
        }
        header
    });
    let any = prop::collection::vec(any::<u8>(), 48).prop_map(|bytes| bytes.try_into().unwrap());
    prop_oneof![9 => changed, 1 => any]
}

proptest! {
    #[test]
    fn no_sequence_of_pdus_panics_leaks_or_answers_twice(
        login in any::<bool>(),
        steps in prop::collection::vec((any_header(), 0_usize..1100, 0_u8..8), 1..60),
    ) {
        let mut script = if login { logged_in("InitialR2T=No\0") } else { connection() };
        let mut executing: Vec<TaskId> = Vec::new();
        let mut purges = Vec::new();
        let mut seconds = 1;
        for (header, length, what) in steps {
            script.send(header, &vec![0x41; length]);
            for action in std::mem::take(&mut script.actions) {
                match action {
                    Action::Execute { task, request } => {
                        prop_assert!(!executing.contains(&task));
                        prop_assert!(request.data_out.len() <= request.expected_bytes as usize);
                        executing.push(task);
                    }
                    Action::Purge { request, .. } => purges.push(request),
                    Action::Admit(_) => script.session.admit(1, NexusId(1)),
                    Action::Drained(_) | Action::Close(_) => {}
                }
            }
            match what {
                0 | 1 => if let Some(task) = executing.pop() {
                    script.finish(task, good(&[0; 700]));
                },
                2 => if let Some(request) = purges.pop() {
                    script.session.abort(DrainId(1), None, &mut script.actions);
                    script.session.purged(request, &mut script.actions);
                },
                3 => {
                    seconds += 3;
                    script.session.tick(moment(seconds), &mut script.actions);
                }
                _ => {}
            }
            prop_assert!(executing.len() <= 128 + 32);
        }
        // Once all has ended, only commands whose data or turn has not come are left.
        while let Some(task) = executing.pop() {
            script.finish(task, good(b""));
            script.seen();
            executing.extend(script.executed().into_iter().map(|(task, _)| task));
        }
        if let Phase::Feature(feature) = &script.session.phase {
            let gathers = |task: &task::Task| matches!(task.stage, task::Stage::Gathering(_));
            prop_assert!(feature.tasks.values().all(gathers));
            prop_assert_eq!(feature.tags.len(), feature.tasks.len());
        }
    }
}
