//! Faults at a given call.

use std::collections::BTreeMap;
use std::io;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Reads.
    Look,
    /// Writes, punches, or changes names or lengths.
    Change,
    /// Makes something durable.
    Sync,
}

/// What a call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an I/O error, and has no effect.
    Io,
    /// It fails because the disk is full, and has no effect; a call that only reads does not fail.
    Full,
    /// The machine stops: this call and all that follow fail.
    Stop,
}

/// Counts calls and lets some fail.
#[derive(Debug, Clone, Default)]
pub(super) struct Injector {
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    stopped: Option<()>,
    failed_syncs: u64,
    /// The calls that met a fault, and which.
    met: Vec<(CallKind, Fault)>,
}

impl Injector {
    pub(super) const fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) const fn failed_syncs(&self) -> u64 {
        self.failed_syncs
    }

    pub(super) fn met(&self) -> &[(CallKind, Fault)] {
        &self.met
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    pub(super) fn fail(&mut self, call: u64, fault: Fault) {
        self.faults.insert(call, fault);
    }

    pub(super) fn restart(&mut self) {
        self.stopped = None;
        self.faults.clear();
    }

    pub(super) fn mend(&mut self) {
        self.faults.clear();
    }

    /// Counts a call and lets it fail if it is to.
    pub(super) fn admit(&mut self, kind: CallKind) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        let fault = self.faults.remove(&call);
        let fault = fault.filter(|fault| *fault != Fault::Full || kind != CallKind::Look);
        self.met.extend(fault.map(|fault| (kind, fault)));
        if fault == Some(Fault::Stop) {
            self.stopped = Some(());
        }
        if self.stopped.is_some() {
            return Err(io::Error::other("the machine has stopped"));
        }
        self.failed_syncs += u64::from(fault == Some(Fault::Io) && kind == CallKind::Sync);
        match fault {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(_) => Err(io::Error::other("injected I/O error")),
            None => Ok(()),
        }
    }
}
