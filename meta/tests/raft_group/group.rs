//! The parent's side: managers as processes, by id.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::child::ARGUMENTS;

/// A manager must end this fast after SIGTERM.
const STOP: Duration = Duration::from_secs(8);

struct Process {
    child: Child,
    orders: RefCell<ChildStdin>,
    answers: RefCell<BufReader<ChildStderr>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way none is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Group {
    directory: tempfile::TempDir,
    addresses: BTreeMap<u64, String>,
    founders: u64,
    running: BTreeMap<u64, Process>,
    acknowledged: BTreeSet<String>,
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Group {
    pub(crate) fn start(size: u64) -> Self {
        let mut group = Self {
            directory: tempfile::tempdir().unwrap(),
            addresses: (1..=size).map(|id| (id, free_address())).collect(),
            founders: size,
            running: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        };
        group.start_all();
        group
    }

    /// An address for one more manager, with the next id.
    pub(crate) fn add_address(&mut self) -> String {
        let id = self.addresses.len() as u64 + 1;
        self.addresses.insert(id, free_address());
        self.addresses[&id].clone()
    }

    fn arguments(&self, id: u64) -> String {
        let address = &self.addresses[&id];
        let directory = self.directory.path().join(id.to_string());
        let mut arguments = format!(
            "manager --id {id} --listen {address} --advertise {address} --directory {}",
            directory.display()
        );
        for (peer, address) in self
            .addresses
            .iter()
            .filter(|(id, _)| **id <= self.founders)
        {
            arguments += &format!(" --peer {peer}={address}");
        }
        if id <= self.founders {
            arguments += " --bootstrap";
        }
        arguments
    }

    fn spawn(&self, id: u64) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "child::child_serves_until_it_is_stopped",
            ])
            .env(ARGUMENTS, self.arguments(id))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process {
            orders: RefCell::new(child.stdin.take().unwrap()),
            answers: RefCell::new(BufReader::new(child.stderr.take().unwrap())),
            child,
        }
    }

    pub(crate) fn start_one(&mut self, id: u64) {
        let process = self.spawn(id);
        assert!(
            self.running.insert(id, process).is_none(),
            "{id} runs already"
        );
    }

    pub(crate) fn start_all(&mut self) {
        for id in 1..=self.founders {
            if !self.running.contains_key(&id) {
                self.start_one(id);
            }
        }
    }

    /// Starts a manager that must refuse, and returns what it says.
    pub(crate) fn start_and_fail(&self, id: u64) -> String {
        let mut process = self.spawn(id);
        let answer = process.answer(id).unwrap_err();
        assert_eq!(process.child.wait().unwrap().code(), Some(3));
        answer
    }

    pub(crate) fn kill(&mut self, id: u64) {
        drop(self.running.remove(&id).expect("it runs"));
    }

    pub(crate) fn kill_all(&mut self) {
        for process in self.running.values_mut() {
            process.child.kill().unwrap();
        }
        self.running.clear();
    }

    pub(crate) fn terminate(&mut self, id: u64) {
        let mut process = self.running.remove(&id).expect("it runs");
        let pid = rustix::process::Pid::from_child(&process.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + STOP;
        let status = loop {
            if let Some(status) = process.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end at SIGTERM");
            std::thread::yield_now();
        };
        assert!(status.success(), "{status}");
    }

    pub(crate) fn delete_directory(&self, id: u64) {
        std::fs::remove_dir_all(self.directory.path().join(id.to_string())).unwrap();
    }

    pub(crate) fn try_ask(&self, id: u64, order: &str) -> Result<String, String> {
        let process = &self.running[&id];
        writeln!(process.orders.borrow_mut(), "{order}").unwrap();
        process.answer(id)
    }

    pub(crate) fn ask(&self, id: u64, order: &str) -> String {
        let answer = self.try_ask(id, order);
        answer.unwrap_or_else(|error| panic!("manager {id} answers {order:?} with {error}"))
    }

    pub(crate) fn leader(&self) -> u64 {
        self.leader_other_than(0)
    }

    /// A leader that can be read from, and so proposed to.
    pub(crate) fn leader_other_than(&self, not: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for id in self.running.keys() {
                let leader: u64 = self.ask(*id, &format!("leader {not}")).parse().unwrap();
                if self.running.contains_key(&leader) && self.try_ask(leader, "read").is_ok() {
                    return leader;
                }
            }
        }
        panic!("no leader in time");
    }

    pub(crate) fn any_but(&self, id: u64) -> u64 {
        *self
            .running
            .keys()
            .rev()
            .find(|other| **other != id)
            .unwrap()
    }

    pub(crate) fn put(&mut self, leader: u64, text: &str) {
        self.ask(leader, &format!("put {text}"));
        let (key, _) = text.split_once('=').unwrap();
        let prefix = format!("{key}=");
        self.acknowledged
            .retain(|known| !known.starts_with(&prefix));
        self.acknowledged.insert(text.into());
    }

    /// Everybody's state, one text a line, once they have applied what the leader has.
    pub(crate) fn dumps(&self, leader: u64) -> Vec<String> {
        let index = self.ask(leader, "read");
        let ids = self.running.keys();
        ids.map(|id| {
            self.ask(*id, &format!("applied {index}"));
            self.ask(*id, "dump").replace(' ', "\n")
        })
        .collect()
    }

    pub(crate) fn assert_holds_all_acknowledged(&self, dump: &str) {
        let held: BTreeSet<String> = dump.lines().map(str::to_owned).collect();
        let lost: Vec<_> = self.acknowledged.difference(&held).collect();
        assert!(lost.is_empty(), "acknowledged, but lost: {lost:?}");
    }
}

impl Process {
    fn answer(&self, id: u64) -> Result<String, String> {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = self.answers.borrow_mut().read_line(&mut line).unwrap();
            assert!(read > 0, "manager {id} ended: {said}");
            let line = line.trim_end_matches('\n');
            match line.split_at_checked(2) {
                Some(("= ", answer)) => return Ok(answer.into()),
                Some(("! ", complaint)) => return Err(complaint.into()),
                _ => said += line,
            }
        }
    }
}
