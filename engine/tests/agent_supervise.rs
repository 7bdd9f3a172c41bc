//! The agent with real engine processes, and managers that say what they are told to say.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod run_support;

use std::net::TcpStream;
use std::path::PathBuf;

use ankole_engine::run::directory::{EngineDirectory, EngineRecord, Phase};
use ankole_proto::VolumeId;
use ankole_proto::rpc::v1;
use run_support::blockd::FakeBlockd;
use run_support::fleet::{FakeManager, add_replica, orders};
use run_support::process::{Process, eventually, free_port, kill, living};
use rustix::process::Signal;
use tempfile::TempDir;

const VOLUME: VolumeId = VolumeId::from_bits(0x77);

/// A node with an agent, one manager, and one volume on a replica in memory.
struct Node {
    directory: TempDir,
    manager: FakeManager,
    port: u16,
    _blockd: FakeBlockd,
}

impl Node {
    fn new() -> Self {
        let blockd = FakeBlockd::spawn(1 << 20);
        let manager = FakeManager::start();
        manager.tell(|state| {
            state.engine_orders = orders(VOLUME, 0);
            add_replica(&mut state.engine_orders, &blockd);
            state.agent_orders.revision = 1;
        });
        Self {
            directory: tempfile::tempdir().unwrap(),
            manager,
            port: free_port(),
            _blockd: blockd,
        }
    }

    fn agent(&self, more: &[&str]) -> Process {
        let directory = self.directory.path().display().to_string();
        let manager = self.manager.address.to_string();
        let mut arguments = vec!["agent", "--node", "node-1", "--engine-host", "127.0.0.1"];
        arguments.extend(["--ports", "1024-65535", "--directory", &directory]);
        arguments.extend(["--manager", &manager]);
        arguments.extend(more);
        Process::start(&arguments, &self.directory.path().join("agent.log"))
    }

    fn engine(&self) -> EngineDirectory {
        EngineDirectory::new(self.path())
    }

    fn path(&self) -> PathBuf {
        self.directory
            .path()
            .join("engines")
            .join(VOLUME.to_string())
    }

    /// Changes the orders for the node.
    fn order(&self, engines: Vec<v1::EngineOrder>) {
        self.manager.tell(|state| {
            state.agent_orders.engines = engines;
            state.agent_orders.revision += 1;
        });
    }

    fn want(&self, epoch: u64) {
        self.order(vec![v1::EngineOrder {
            volume_id: VOLUME.to_string(),
            volume_name: "data".to_owned(),
            epoch,
            port: self.port.into(),
            iqn: "iqn.2026-01.io.ankole:data".to_owned(),
            without_target: false,
            ..Default::default()
        }]);
    }

    /// Waits until the agent reports that the engine of this epoch serves.
    fn reported(&self, epoch: u64) -> EngineRecord {
        self.manager
            .wait_for(&format!("epoch {epoch} to serve"), |state| {
                let engines = &state.agent_reports.last()?.engines;
                engines
                    .iter()
                    .find(|engine| engine.epoch == epoch && engine.serving)
                    .map(|_| ())
            });
        let record = living(&self.engine()).unwrap();
        assert_eq!(record.epoch.raw(), epoch);
        TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        record
    }

    fn ended(&self) -> EngineRecord {
        let engine = self.engine();
        eventually("the engine to end", || {
            (!engine.is_held().unwrap()).then(|| engine.record().unwrap().unwrap())
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // No engine is to outlive its test, also one that failed. The agents are gone by now.
        if let Some(record) = living(&self.engine()) {
            kill(&record);
        }
        if std::thread::panicking() {
            for log in [
                self.directory.path().join("agent.log"),
                self.path().join("log"),
            ] {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                eprintln!("--- {}\n{text}", log.display());
            }
        }
    }
}

fn command_line(record: &EngineRecord) -> String {
    let bytes = std::fs::read(format!("/proc/{}/cmdline", record.pid)).unwrap();
    String::from_utf8(bytes).unwrap().replace('\0', " ")
}

#[test]
fn a_killed_engine_is_replaced_under_the_next_epoch() {
    let node = Node::new();
    node.want(0);
    let _agent = node.agent(&[]);
    let first = node.reported(1);
    assert!(!command_line(&first).contains("--previous-ended"));
    kill(&first);
    let second = node.reported(2);
    assert_ne!(first.pid, second.pid);
    // The agent has seen the first one die: nobody has to wait for its lease.
    assert!(command_line(&second).contains("--previous-ended"));
    assert_eq!(
        node.manager.tell(|state| state.epochs[&VOLUME.to_string()]),
        2
    );
}

#[test]
fn engines_outlive_their_agent_and_the_next_agent_adopts_them() {
    let node = Node::new();
    node.want(0);
    for end in [Signal::TERM, Signal::KILL] {
        let mut agent = node.agent(&[]);
        let engine = node.reported(1);
        agent.signal(end);
        agent.wait();
        assert_eq!(living(&node.engine()), Some(engine));
        node.manager.tell(|state| state.agent_reports.clear());
    }
    let _agent = node.agent(&[]);
    let adopted = node.reported(1);
    // Also an engine that is no child of the agent is missed when it dies, and seen dead.
    kill(&adopted);
    let next = node.reported(2);
    assert!(command_line(&next).contains("--previous-ended"));
}

#[test]
fn an_engine_that_is_not_wanted_any_more_ends_in_order() {
    let node = Node::new();
    node.want(0);
    let _agent = node.agent(&[]);
    node.reported(1);
    node.order(Vec::new());
    assert_eq!(node.ended().phase, Phase::Closed);
    node.manager.wait_for("a report without engines", |state| {
        let report = state.agent_reports.last()?;
        report.engines.is_empty().then_some(())
    });
    assert!(TcpStream::connect(("127.0.0.1", node.port)).is_err());
}

#[test]
fn an_engine_of_an_older_epoch_than_ordered_is_replaced() {
    let node = Node::new();
    node.want(0);
    let _agent = node.agent(&[]);
    node.reported(1);
    // Somebody was granted epoch 7 and never started an engine with it.
    node.manager.tell(|state| {
        state.epochs.insert(VOLUME.to_string(), 7);
    });
    node.want(7);
    let replaced = node.reported(8);
    assert!(!command_line(&replaced).contains("--previous-ended"));
}

#[test]
fn a_fenced_engine_is_not_started_again_until_the_orders_say_so() {
    let node = Node::new();
    node.want(0);
    let _agent = node.agent(&[]);
    node.reported(1);
    // The volume has gone elsewhere; the order for this node is late.
    node.manager.tell(|state| {
        state.engine_orders.epoch = 2;
        state.engine_orders.revision += 1;
    });
    assert_eq!(node.ended().phase, Phase::Fenced);
    let calls = node.manager.tell(|state| state.calls);
    node.manager.wait_for("two more heartbeats", |state| {
        (state.calls > calls + 2).then_some(())
    });
    assert_eq!(
        node.manager.tell(|state| state.epochs[&VOLUME.to_string()]),
        1
    );
    node.manager.tell(|state| {
        state.epochs.insert(VOLUME.to_string(), 2);
    });
    node.want(2);
    node.reported(3);
}

#[test]
fn an_agent_that_is_told_to_stop_its_engines_leaves_none() {
    let node = Node::new();
    node.want(0);
    let mut agent = node.agent(&["--stop-engines"]);
    node.reported(1);
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    assert_eq!(node.ended().phase, Phase::Closed);
}

#[test]
fn two_agents_do_not_share_a_directory() {
    let node = Node::new();
    node.want(0);
    let _agent = node.agent(&[]);
    node.reported(1);
    let mut second = node.agent(&[]);
    assert!(!second.wait().success());
    let printed = second.printed();
    assert!(
        printed.contains("already works in this directory"),
        "{printed}"
    );
}
