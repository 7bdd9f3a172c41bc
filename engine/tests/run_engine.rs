//! One engine as a process, with replicas in memory and managers that say what they are told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod run_support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use ankole_engine::run::directory::{EngineDirectory, EngineRecord, Phase};
use ankole_proto::VolumeId;
use ankole_proto::rpc::v1;
use ankole_proto::wire::{ErrorCode, Opcode};
use run_support::blockd::{FakeBlockd, Manner};
use run_support::fleet::{FakeManager, add_replica, orders};
use run_support::process::{Process, eventually, free_port, living};
use rustix::process::Signal;
use tempfile::TempDir;

const VOLUME: VolumeId = VolumeId::from_bits(0x55);
const FENCED: i32 = 3;

/// A volume with three replicas, granted epoch 4.
struct Volume {
    directory: TempDir,
    manager: FakeManager,
    blockds: Vec<FakeBlockd>,
    port: u16,
}

impl Volume {
    fn new() -> Self {
        let blockds: Vec<_> = (0..3).map(|_| FakeBlockd::spawn(1 << 20)).collect();
        let manager = FakeManager::start();
        manager.tell(|state| {
            state.engine_orders = orders(VOLUME, 4);
            for blockd in &blockds {
                add_replica(&mut state.engine_orders, blockd);
            }
        });
        Self {
            directory: tempfile::tempdir().unwrap(),
            manager,
            blockds,
            port: free_port(),
        }
    }

    fn run(&self, more: &[&str]) -> Process {
        let volume = VOLUME.to_string();
        let directory = self.directory.path().display().to_string();
        let manager = self.manager.address.to_string();
        let mut arguments = vec![
            "run", "--volume", &volume, "--epoch", "4", "--node", "node-1",
        ];
        arguments.extend(["--directory", &directory, "--manager", &manager]);
        arguments.extend(more);
        Process::start(&arguments, &self.directory.path().join("printed"))
    }

    fn run_target(&self) -> Process {
        let listen = format!("127.0.0.1:{}", self.port);
        self.run(&["--listen", &listen])
    }

    fn record(&self) -> EngineRecord {
        self.engine().record().unwrap().unwrap()
    }

    fn engine(&self) -> EngineDirectory {
        EngineDirectory::new(self.directory.path())
    }

    fn wait_until_serving(&self) -> EngineRecord {
        self.manager.wait_for("a report that it serves", |state| {
            state.engine_reports.last()?.serving.then_some(())
        });
        eventually("the record to say so", || {
            living(&self.engine()).filter(|record| record.phase == Phase::Serving)
        })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["printed", "log"] {
                let text = std::fs::read_to_string(self.directory.path().join(name));
                eprintln!("--- {name}\n{}", text.unwrap_or_default());
            }
        }
    }
}

#[test]
fn it_serves_once_every_replica_is_open_and_ends_in_order_when_told_to() {
    let volume = Volume::new();
    let mut engine = volume.run_target();
    let record = volume.wait_until_serving();
    assert_eq!((record.volume, record.epoch.raw()), (VOLUME, 4));
    assert_eq!(record.port, Some(volume.port));
    TcpStream::connect(("127.0.0.1", volume.port)).unwrap();
    for blockd in &volume.blockds {
        let contents = blockd.contents.lock();
        assert_eq!((contents.epoch, contents.opcodes[0]), (4, Opcode::Open));
    }
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait().code(), Some(0));
    assert_eq!(volume.record().phase, Phase::Closed);
    for blockd in &volume.blockds {
        assert!(blockd.contents.lock().opcodes.contains(&Opcode::Close));
    }
}

#[test]
fn a_replica_that_obeys_a_newer_epoch_ends_it_for_good() {
    let volume = Volume::new();
    volume.blockds[1].misbehave(Manner::RefuseOpen(ErrorCode::Fenced));
    let mut engine = volume.run_target();
    assert_eq!(engine.wait().code(), Some(FENCED));
    let record = volume.record();
    assert_eq!(record.phase, Phase::Fenced);
    assert!(record.message.contains("77"), "{}", record.message);
    assert!(TcpStream::connect(("127.0.0.1", volume.port)).is_err());
}

#[test]
fn orders_of_a_newer_epoch_end_it_for_good_before_it_touches_a_replica() {
    let volume = Volume::new();
    volume.manager.tell(|state| state.engine_orders.epoch = 5);
    let mut engine = volume.run_target();
    assert_eq!(engine.wait().code(), Some(FENCED));
    for blockd in &volume.blockds {
        assert!(blockd.contents.lock().opcodes.is_empty());
    }
}

#[test]
fn a_replica_that_cannot_be_opened_is_recorded_lost_before_the_volume_is_served() {
    let volume = Volume::new();
    volume.blockds[2].misbehave(Manner::RefuseOpen(ErrorCode::Faulted));
    let _engine = volume.run_target();
    let lost = volume.manager.wait_for("the record of the loss", |state| {
        state.records.first().cloned()
    });
    assert!(lost.starts_with(&format!("lost {:032x} ", 3)), "{lost}");
    assert!(
        !volume
            .manager
            .tell(|state| { state.engine_reports.iter().any(|report| report.serving) })
    );
    // The managers' answer says who is left.
    volume.manager.tell(|state| {
        state.engine_orders.replicas.pop();
        state.engine_orders.revision += 1;
    });
    volume.wait_until_serving();
}

#[test]
fn it_serves_on_without_managers() {
    let volume = Volume::new();
    let mut engine = volume.run_target();
    volume.wait_until_serving();
    let calls = volume.manager.tell(|state| {
        state.leaderless = true;
        state.calls
    });
    volume.manager.wait_for("calls without an answer", |state| {
        (state.calls > calls + 3).then_some(())
    });
    assert_eq!(living(&volume.engine()).unwrap().phase, Phase::Serving);
    TcpStream::connect(("127.0.0.1", volume.port)).unwrap();
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait().code(), Some(0));
}

#[test]
fn an_engine_without_a_target_does_the_tasks_of_its_volume() {
    let volume = Volume::new();
    volume.manager.tell(|state| {
        let head = state.engine_orders.head_layer.clone();
        state.engine_orders.tasks.push(v1::EngineTask {
            id: 9,
            task: Some(v1::engine_task::Task::Seal(v1::SealTask {
                snapshot_id: format!("{:032x}", 1),
                head_layer: head,
                new_head_layer: format!("{:016x}", 2),
                ..Default::default()
            })),
        });
    });
    let mut engine = volume.run(&["--without-target"]);
    let done = volume
        .manager
        .wait_for("the task's record", |state| state.records.first().cloned());
    assert_eq!(done, "task 9 \"\"");
    for blockd in &volume.blockds {
        assert!(blockd.contents.lock().opcodes.contains(&Opcode::Seal));
    }
    assert_eq!(volume.wait_until_serving().port, None);
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait().code(), Some(0));
}

#[test]
fn told_to_end_while_it_waits_for_orders_it_ends() {
    let volume = Volume::new();
    volume.manager.tell(|state| state.leaderless = true);
    let mut engine = volume.run_target();
    volume
        .manager
        .wait_for("a first call", |state| (state.calls > 0).then_some(()));
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait().code(), Some(0));
}

#[test]
fn told_to_end_while_it_waits_for_replicas_it_ends() {
    let volume = Volume::new();
    for blockd in &volume.blockds {
        blockd.misbehave(Manner::Silent);
    }
    let mut engine = volume.run_target();
    volume
        .manager
        .wait_for("a report of what it waits for", |state| {
            (!state.engine_reports.last()?.message.is_empty()).then_some(())
        });
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait().code(), Some(0));
}

#[test]
fn a_stopped_engine_is_followed_by_one_elsewhere_after_its_lease_and_ends_when_it_goes_on() {
    let volume = Volume::new();
    let mut stopped = volume.run_target();
    volume.wait_until_serving();
    stopped.signal(Signal::STOP);
    let lease = Duration::from_millis(1500);
    for blockd in &volume.blockds {
        blockd.contents.lock().lease_remaining_ms = 1500;
    }
    volume.manager.tell(|state| {
        state.engine_orders.epoch = 5;
        state.engine_orders.revision += 1;
    });
    let elsewhere = tempfile::tempdir().unwrap();
    let (directory, manager) = (
        elsewhere.path().display().to_string(),
        volume.manager.address.to_string(),
    );
    let (id, listen) = (VOLUME.to_string(), format!("127.0.0.1:{}", free_port()));
    let mut arguments = vec!["run", "--volume", &id, "--epoch", "5", "--node", "node-2"];
    arguments.extend(["--directory", &directory, "--manager", &manager]);
    arguments.extend(["--listen", &listen]);
    let begun = Instant::now();
    let _next = Process::start(&arguments, &elsewhere.path().join("printed"));
    eventually("the engine elsewhere to serve", || {
        let record = living(&EngineDirectory::new(elsewhere.path()))?;
        (record.phase == Phase::Serving).then_some(())
    });
    assert!(
        begun.elapsed() >= lease,
        "the old one may still have served"
    );
    stopped.signal(Signal::CONT);
    assert_eq!(stopped.wait().code(), Some(FENCED));
    assert_eq!(volume.record().phase, Phase::Fenced);
}

#[test]
fn a_second_engine_in_the_same_directory_is_refused() {
    let volume = Volume::new();
    let _engine = volume.run_target();
    volume.wait_until_serving();
    let mut second = volume.run_target();
    assert_eq!(second.wait().code(), Some(1));
    assert!(second.printed().contains("locked by another process"));
    assert_eq!(volume.wait_until_serving().epoch.raw(), 4);
}

#[test]
fn what_is_wrong_on_the_command_line_is_said() {
    let volume = Volume::new();
    for (arguments, said) in [
        (&["run", "--epoch", "0"][..], "an epoch is a number above 0"),
        (
            &["run", "--volume", "x"],
            "32 lower-case hexadecimal digits",
        ),
        (&["agent", "--ports", "9-1"], "3260-3299"),
        (&["agent", "--manager", "nowhere"], "give host:port"),
    ] {
        let output = volume.directory.path().join("printed");
        let mut process = Process::start(arguments, &output);
        assert!(!process.wait().success());
        assert!(process.printed().contains(said), "{}", process.printed());
    }
}
