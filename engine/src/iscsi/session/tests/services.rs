//! Everything but commands: task management, text, logout, NOP and what is malformed.

use super::*;

#[test]
fn a_ping_is_answered_with_its_data() {
    let mut script = logged_in("");
    script.send(simple(0x00, 0x80, 5, FIRST), b"are you there");
    let answer = script.seen().pop().unwrap();
    assert_eq!(
        (answer.opcode(), answer.word(16), answer.word(28)),
        (0x20, 5, FIRST + 1)
    );
    assert_eq!(answer.data, b"are you there");
}

#[test]
fn a_silent_initiator_is_pinged_and_then_given_up() {
    let mut script = logged_in("");
    let ping_at = 2 + limit::PING_AFTER.as_secs();
    script.session.tick(moment(ping_at), &mut script.actions);
    let ping = script.seen().pop().unwrap();
    assert_eq!((ping.opcode(), ping.word(16)), (0x20, u32::MAX));
    assert_ne!(ping.word(20), u32::MAX);
    let dead_at = ping_at + limit::PING_DEADLINE.as_secs();
    script.session.tick(moment(dead_at), &mut script.actions);
    assert_eq!(script.closed(), None);
    script
        .session
        .tick(moment(dead_at + 1), &mut script.actions);
    assert_eq!(script.closed(), Some(Ending::Dead));
}

#[test]
fn a_login_that_never_ends_is_given_up() {
    let mut script = connection();
    let late = moment(limit::LOGIN_DEADLINE.as_secs() + 1);
    script.session.tick(late, &mut script.actions);
    assert_eq!(script.closed(), Some(Ending::LoginTimeout));
}

#[test]
fn nothing_but_a_login_comes_first() {
    let mut script = connection();
    script.send(command(READ_10, 1, FIRST, 1), b"");
    assert_eq!(script.closed(), Some(Ending::Refused(Refusal::NotLogin)));
    assert!(script.executed().is_empty());
}

#[test]
fn aborting_a_command_that_gathers_drops_it_at_once() {
    let mut script = logged_in("");
    script.send(command(WRITE_10, 1, FIRST, 8), b"");
    script.seen();
    script.send(management(1, 2, 1), b"");
    let response = script.seen().pop().unwrap();
    assert_eq!((response.opcode(), response.header[2]), (TASK_RESPONSE, 0));
    assert_eq!(
        response.word(32),
        FIRST + limit::COMMAND_WINDOW,
        "its number is free again"
    );
    assert!(script.executed().is_empty());
}

#[test]
fn aborting_a_command_that_executes_waits_for_it_and_silences_it() {
    let mut script = logged_in("");
    script.send(command(READ_10, 1, FIRST, 1), b"");
    let (task, _) = script.executed().pop().unwrap();
    script.send(management(1, 2, 1), b"");
    assert!(script.seen().is_empty(), "it still executes");
    assert!(!script.session.wants(task));
    script.session.drop_task(task, &mut script.actions);
    let seen = script.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].opcode(), seen[0].header[2]), (TASK_RESPONSE, 0));
}

#[test]
fn aborting_what_is_unknown_says_so_and_what_has_not_come_voids_it() {
    let mut script = logged_in("");
    let mut unknown = management(1, 2, 1);
    put(&mut unknown, 32, FIRST - 5);
    script.send(unknown, b"");
    assert_eq!(script.seen().pop().unwrap().header[2], 1);
    let mut not_yet = management(1, 3, 1);
    put(&mut not_yet, 32, FIRST);
    script.send(not_yet, b"");
    assert_eq!(script.seen().pop().unwrap().header[2], 0);
    script.send(command(READ_10, 1, FIRST, 1), b"");
    assert!(script.executed().is_empty());
}

#[test]
fn a_task_set_is_aborted_as_one() {
    let mut script = logged_in("");
    script.send(command(READ_10, 1, FIRST, 1), b"");
    script.send(command(READ_10, 2, FIRST + 1, 1), b"");
    script.send(command(WRITE_10, 3, FIRST + 2, 1), b"");
    let tasks: Vec<TaskId> = script
        .executed()
        .into_iter()
        .map(|(task, _)| task)
        .collect();
    assert_eq!(tasks.len(), 2);
    script.seen();
    script.send(management(2, 9, u32::MAX), b"");
    script.finish(tasks[0], good(&[0; 512]));
    assert!(script.seen().is_empty());
    script.finish(tasks[1], good(&[0; 512]));
    let seen = script.seen();
    assert_eq!(
        seen.iter().map(Seen::opcode).collect::<Vec<_>>(),
        [TASK_RESPONSE]
    );
}

#[test]
fn a_reset_is_answered_when_all_sessions_have_drained() {
    let mut script = logged_in("");
    script.send(command(READ_10, 1, FIRST, 1), b"");
    let (task, _) = script.executed().pop().unwrap();
    script.send(management(5, 9, u32::MAX), b"");
    let Some(Action::Purge { request, reset }) = script.actions.pop() else {
        panic!("no purge");
    };
    assert_eq!(reset, Reset::LogicalUnit);
    script.session.abort(DrainId(4), None, &mut script.actions);
    assert!(script.actions.is_empty());
    script.session.drop_task(task, &mut script.actions);
    assert!(matches!(
        script.actions.pop(),
        Some(Action::Drained(DrainId(4)))
    ));
    script.session.purged(request, &mut script.actions);
    assert_eq!(script.seen().pop().unwrap().opcode(), TASK_RESPONSE);
}

#[test]
fn functions_that_do_not_exist_are_refused() {
    let mut script = logged_in("");
    let mut elsewhere = management(5, 1, 0);
    elsewhere[9] = 3;
    script.send(elsewhere, b"");
    for function in [3, 8, 60] {
        script.send(management(function, 1, 0), b"");
    }
    let codes: Vec<u8> = script.seen().iter().map(|pdu| pdu.header[2]).collect();
    assert_eq!(codes, [2, 5, 4, 255]);
    assert!(script.actions.is_empty());
}

#[test]
fn logout_is_answered_and_ends_the_session() {
    let mut script = logged_in("");
    script.send(simple(0x06, 0x82, 1, FIRST), b"");
    assert_eq!(
        script.seen().pop().unwrap().header[2],
        2,
        "recovery is not supported"
    );
    let mut other = simple(0x06, 0x81, 1, FIRST + 1);
    put(&mut other, 20, 5 << 16);
    script.send(other, b"");
    assert_eq!(
        script.seen().pop().unwrap().header[2],
        1,
        "no such connection"
    );
    assert_eq!(script.closed(), None);
    script.send(simple(0x06, 0x80, 1, FIRST + 2), b"");
    let response = script.session.output.contents();
    assert_eq!((response[0], response[2]), (0x26, 0));
    assert_eq!(script.closed(), Some(Ending::LoggedOut));
}

#[test]
fn malformed_and_unsupported_requests_are_rejected_with_their_header() {
    let mut script = logged_in("");
    let mut reserved_tag = command(READ_10, u32::MAX, FIRST, 1);
    reserved_tag[2] = 0xaa;
    for (header, reason) in [
        (simple(0x1c, 0x80, 1, FIRST), 0x05),
        (simple(0x10, 0x80, 1, FIRST), 0x03),
        (login_header(), 0x04),
        (reserved_tag, 0x09),
    ] {
        script.send(header, b"");
        let reject = script.seen().pop().unwrap();
        assert_eq!((reject.opcode(), reject.header[2]), (REJECT, reason));
        assert_eq!(reject.data, header);
    }
    assert_eq!(script.closed(), None);
}

#[test]
fn send_targets_lists_the_target() {
    let mut script = connection();
    let text = b"InitiatorName=iqn.2026-01.test:host\0SessionType=Discovery\0";
    script.send(login_header(), text);
    script.actions.clear();
    script.session.admit(7, NexusId(3));
    script.seen();
    script.send(simple(0x04, 0x80, 1, FIRST), b"SendTargets=All\0");
    let response = script.seen().pop().unwrap();
    assert_eq!(
        (response.opcode(), response.header[1], response.word(20)),
        (0x24, 0x80, u32::MAX)
    );
    let expected = "TargetName=iqn.2026-01.test:disk\0TargetAddress=[2001:db8::1]:3260,1\0";
    assert_eq!(response.data, expected.as_bytes());
    script.send(command(READ_10, 1, FIRST + 1, 1), b"");
    assert_eq!(
        script.seen().pop().unwrap().opcode(),
        REJECT,
        "discovery takes no commands"
    );
}

#[test]
fn text_may_come_in_pieces_but_not_without_end() {
    let mut script = logged_in("");
    script.send(simple(0x04, 0x40, 1, FIRST), b"Strange=1\0Send");
    let first = script.seen().pop().unwrap();
    assert_eq!(first.header[1] & 0x80, 0);
    let mut rest = simple(0x04, 0x80, 1, FIRST + 1);
    put(&mut rest, 20, first.word(20));
    script.send(rest, b"Targets=\0");
    let answer = String::from_utf8(script.seen().pop().unwrap().data).unwrap();
    assert!(
        answer.starts_with("Strange=NotUnderstood\0TargetName=iqn"),
        "{answer:?}"
    );
    let mut number = FIRST + 2;
    let mut transfer = u32::MAX;
    loop {
        let mut more = simple(0x04, 0x40, 1, number);
        put(&mut more, 20, transfer);
        script.send(more, &[b'x'; 8192]);
        number += 1;
        let seen = script.seen().pop().unwrap();
        transfer = seen.word(20);
        if seen.opcode() == REJECT {
            break;
        }
        assert!(number < FIRST + 12, "unbounded text");
    }
}

#[test]
fn a_planned_stop_asks_for_logout() {
    let mut script = logged_in("");
    script.session.request_logout(10);
    let message = script.seen().pop().unwrap();
    assert_eq!((message.opcode(), message.header[36]), (0x32, 1));
}

#[test]
fn status_numbers_count_the_answers() {
    let mut script = logged_in("");
    for tag in 0..3 {
        script.send(simple(0x00, 0x80, tag, FIRST + tag), b"");
    }
    let numbers: Vec<u32> = script.seen().iter().map(|pdu| pdu.word(24)).collect();
    assert_eq!(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2]);
}

/// A READ (10) with this task attribute.
fn with_attribute(attribute: u8, tag: u32, number: u32) -> [u8; 48] {
    let mut header = command(READ_10, tag, number, 1);
    header[1] |= attribute;
    header
}

const SIMPLE: u8 = 1;
const ORDERED: u8 = 2;
const HEAD_OF_QUEUE: u8 = 3;

#[test]
fn an_ordered_command_waits_for_the_older_and_holds_up_the_later() {
    let mut script = logged_in("");
    for (place, attribute) in (0..).zip([SIMPLE, ORDERED, SIMPLE, SIMPLE]) {
        script.send(with_attribute(attribute, place, FIRST + place), b"");
    }
    let first = script.executed();
    assert_eq!(first.len(), 1, "only the oldest");
    script.finish(first[0].0, good(&[0; 512]));
    let second = script.executed();
    assert_eq!(second.len(), 1, "the ordered one alone");
    script.finish(second[0].0, good(&[0; 512]));
    assert_eq!(script.executed().len(), 2, "then the others together");
}

#[test]
fn a_head_of_queue_command_goes_first_and_alone() {
    let mut script = logged_in("");
    script.send(with_attribute(SIMPLE, 1, FIRST), b"");
    script.send(with_attribute(ORDERED, 2, FIRST + 1), b"");
    script.send(with_attribute(HEAD_OF_QUEUE, 3, FIRST + 2), b"");
    script.send(with_attribute(SIMPLE, 4, FIRST + 3), b"");
    let begun = script.executed();
    assert_eq!(begun.len(), 2, "the oldest, and the head of the queue");
    script.finish(begun[0].0, good(&[0; 512]));
    assert!(script.executed().is_empty(), "the ordered one waits for it");
    script.finish(begun[1].0, good(&[0; 512]));
    let ordered = script.executed();
    assert_eq!(ordered.len(), 1);
    script.finish(ordered[0].0, good(&[0; 512]));
    assert_eq!(script.executed().len(), 1);
}

#[test]
fn an_abort_of_what_stands_before_lets_the_others_go_on() {
    let mut script = logged_in("");
    script.send(with_attribute(SIMPLE, 1, FIRST), b"");
    script.send(with_attribute(ORDERED, 2, FIRST + 1), b"");
    script.send(with_attribute(SIMPLE, 3, FIRST + 2), b"");
    assert_eq!(script.executed().len(), 1);
    script.send(management(1, 9, 2), b"");
    assert_eq!(script.seen().pop().unwrap().header[2], 0, "aborted at once");
    assert_eq!(script.executed().len(), 1, "nothing holds the third up");
}

#[test]
fn attributes_reach_the_unit() {
    let mut script = logged_in("");
    for (tag, attribute) in (0..).zip([0, 4, 5, 7]) {
        script.send(with_attribute(attribute, tag, FIRST + tag), b"");
    }
    let seen: Vec<Attribute> = script
        .executed()
        .into_iter()
        .map(|(_, request)| request.attribute)
        .collect();
    assert_eq!(
        seen,
        [
            Attribute::Simple,
            Attribute::ContingentAllegiance,
            Attribute::Reserved,
            Attribute::Reserved
        ]
    );
}

#[test]
fn a_unit_attention_is_announced() {
    let mut script = logged_in("");
    assert_eq!(script.session.nexus(), Some(NexusId(3)));
    script.session.announce(&[0x70, 0, 6]);
    let message = script.seen().pop().unwrap();
    assert_eq!((message.opcode(), message.header[36]), (0x32, 0));
    assert_eq!(message.data, [0, 3, 0x70, 0, 6]);
    assert_eq!(message.word(16), u32::MAX);
}
