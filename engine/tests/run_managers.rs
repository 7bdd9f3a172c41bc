//! The control thread of an engine, against managers that say what they are told to say.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod run_support;

use std::time::Duration;

use ankole_engine::managers::{Control, ControlConfig, ControlEvent, EngineStatus, ManagerAddress};
use ankole_engine::mirror::event::{Record, RecordRefusal, TaskId};
use ankole_proto::{Epoch, ReplicaId, VolumeId};
use run_support::PATIENCE;
use run_support::fleet::{FakeManager, orders};
use tokio::sync::mpsc;

const VOLUME: VolumeId = VolumeId::from_bits(1);
const REPLICA: ReplicaId = ReplicaId::from_bits(2);

fn start(managers: &[&FakeManager]) -> (Control, mpsc::Receiver<ControlEvent>) {
    start_at(managers.iter().map(|manager| manager.address.to_string()))
}

fn start_at(addresses: impl Iterator<Item = String>) -> (Control, mpsc::Receiver<ControlEvent>) {
    let managers: Vec<ManagerAddress> = addresses.map(|address| address.parse().unwrap()).collect();
    Control::start(ControlConfig {
        managers,
        volume: VOLUME,
        epoch: Epoch::from_raw(4),
        node: "a".parse().unwrap(),
    })
    .unwrap()
}

/// The next event but troubles.
async fn next(events: &mut mpsc::Receiver<ControlEvent>) -> ControlEvent {
    let next = async {
        loop {
            match events.recv().await.expect("the control thread ended") {
                ControlEvent::Trouble(_) => {}
                event => return event,
            }
        }
    };
    tokio::time::timeout(PATIENCE, next)
        .await
        .expect("an event in time")
}

async fn next_revision(events: &mut mpsc::Receiver<ControlEvent>) -> u64 {
    match next(events).await {
        ControlEvent::Orders(orders) => orders.orders.revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn orders_come_at_once_and_again_when_they_change() {
    let manager = FakeManager::start();
    manager.tell(|state| state.engine_orders = orders(VOLUME, 4));
    let (_control, mut events) = start(&[&manager]);
    assert_eq!(next_revision(&mut events).await, 1);
    manager.tell(|state| state.engine_orders.revision = 2);
    assert_eq!(next_revision(&mut events).await, 2);
}

#[tokio::test]
async fn a_dead_and_a_leaderless_manager_are_passed_over() {
    let (good, leaderless) = (FakeManager::start(), FakeManager::start());
    leaderless.tell(|state| state.leaderless = true);
    good.tell(|state| state.engine_orders = orders(VOLUME, 4));
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let addresses = [dead, leaderless.address, good.address];
    let (control, mut events) = start_at(addresses.iter().map(ToString::to_string));
    assert_eq!(next_revision(&mut events).await, 1);
    let record = Record::ReplicaInSync { replica: REPLICA };
    control.record(record.clone()).unwrap();
    let ControlEvent::Recorded {
        record: answered,
        result,
    } = next(&mut events).await
    else {
        panic!("no answer to the record");
    };
    assert_eq!(answered, record);
    assert_eq!(result.unwrap().revision, 1);
}

#[tokio::test]
async fn records_are_answered_in_order_and_refusals_typed() {
    let manager = FakeManager::start();
    manager.tell(|state| state.engine_orders = orders(VOLUME, 4));
    let (control, mut events) = start(&[&manager]);
    assert_eq!(next_revision(&mut events).await, 1);
    let lost = Record::ReplicaLost {
        replica: REPLICA,
        reason: "it is silent".to_owned(),
    };
    let done = Record::TaskDone {
        task: TaskId(9),
        refusal: None,
    };
    for record in [&lost, &done] {
        control.record(record.clone()).unwrap();
    }
    for expected in [&lost, &done] {
        let event = next(&mut events).await;
        assert!(
            matches!(&event, ControlEvent::Recorded { record, result: Ok(_) } if record == expected),
            "{event:?}"
        );
    }
    let records = manager.tell(|state| std::mem::take(&mut state.records));
    assert_eq!(
        records,
        [
            format!("lost {REPLICA} it is silent"),
            "task 9 \"\"".to_owned()
        ]
    );
    for (named, expected) in [
        ("fenced", RecordRefusal::Fenced),
        ("last-in-sync", RecordRefusal::LastInSync),
        ("unknown-replica", RecordRefusal::Unknown),
    ] {
        manager.tell(|state| state.refusal = Some(named));
        control.record(lost.clone()).unwrap();
        let event = next(&mut events).await;
        assert!(
            matches!(&event, ControlEvent::Recorded { result: Err(refusal), .. }
                if *refusal == expected),
            "{event:?}"
        );
    }
}

#[tokio::test]
async fn a_record_that_no_manager_takes_is_answered_as_unreachable() {
    let manager = FakeManager::start();
    manager.tell(|state| state.leaderless = true);
    let (control, mut events) = start(&[&manager]);
    control
        .record(Record::ReplicaInSync { replica: REPLICA })
        .unwrap();
    let event = next(&mut events).await;
    assert!(
        matches!(
            &event,
            ControlEvent::Recorded {
                result: Err(RecordRefusal::Unreachable(_)),
                ..
            }
        ),
        "{event:?}"
    );
    assert_eq!(manager.tell(|state| state.records.len()), 0);
}

#[tokio::test]
async fn reservations_are_kept_in_order_and_told_anew_when_a_change_is_void() {
    let manager = FakeManager::start();
    manager.tell(|state| state.engine_orders = orders(VOLUME, 4));
    let (control, mut events) = start(&[&manager]);
    assert_eq!(next_revision(&mut events).await, 1);
    control.reservations_known("before".into());
    manager.tell(|state| state.leaderless = true);
    control.keeper().keep("void".into()).unwrap();
    let event = next(&mut events).await;
    assert!(matches!(event, ControlEvent::Kept(Err(_))), "{event:?}");
    manager.tell(|state| state.leaderless = false);
    assert_eq!(next(&mut events).await, ControlEvent::Settled);
    control.keeper().keep("after".into()).unwrap();
    assert_eq!(next(&mut events).await, ControlEvent::Kept(Ok(())));
    let records = manager.tell(|state| std::mem::take(&mut state.records));
    let (last, before) = records.split_last().unwrap();
    assert!(last.ends_with(" after"), "{records:?}");
    assert!(
        before.iter().all(|one| one.ends_with(" before")),
        "{records:?}"
    );
    assert!(!before.is_empty());
}

#[tokio::test]
async fn reservations_of_an_earlier_version_are_handed_over() {
    let manager = FakeManager::start();
    manager.tell(|state| state.engine_orders = orders(VOLUME, 4));
    let (control, mut events) = start(&[&manager]);
    assert_eq!(next_revision(&mut events).await, 1);
    control.adopt_reservations("from a file".into());
    assert_eq!(next(&mut events).await, ControlEvent::Settled);
    let kept = manager.tell(|state| state.engine_orders.reservations.clone());
    assert_eq!(kept, b"from a file");
}

#[tokio::test]
async fn orders_that_cannot_be_followed_are_trouble_and_not_orders() {
    let manager = FakeManager::start();
    manager.tell(|state| {
        state.engine_orders = orders(VOLUME, 4);
        state.engine_orders.size_bytes = 1;
    });
    let (_control, mut events) = start(&[&manager]);
    let first = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap();
    let Some(ControlEvent::Trouble(trouble)) = first else {
        panic!("{first:?}");
    };
    assert!(
        trouble.contains("1 bytes is not a volume size"),
        "{trouble}"
    );
}

#[tokio::test]
async fn a_changed_status_is_reported_without_waiting_for_the_long_poll() {
    let manager = FakeManager::start();
    manager.tell(|state| state.engine_orders = orders(VOLUME, 4));
    let (control, mut events) = start(&[&manager]);
    assert_eq!(next_revision(&mut events).await, 1);
    let begun = std::time::Instant::now();
    control.report(EngineStatus {
        serving: true,
        initiators: 3,
        ..EngineStatus::default()
    });
    let seen = manager.wait_for("the new status", |state| {
        let report = state.engine_reports.last()?;
        (report.serving && report.initiators == 3).then_some(report.epoch)
    });
    assert_eq!(seen, 4);
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
}
