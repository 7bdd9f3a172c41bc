//! One connection's thread: waits for frames, has each judged and carried out, sends the answers.
//!
//! Whatever can be done in place is: no other thread is woken for a read or a write. Answers go out
//! in one system call once everything that had arrived is done.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ankole_proto::wire::body::OpenRequest;
use ankole_proto::wire::{ErrorCode, FrameError, Header, LEASE_MS};
use bytes::Bytes;

use super::execute::{self, Tenant};
use super::link::{Answer, Denial, Link};
use super::phase::{Phase, Verdict, judge};
use super::reader::FrameReader;
use super::server::Shared;

/// How often a waiting connection looks at its deadlines and at answers left for it to send.
pub(super) const TICK: Duration = Duration::from_millis(200);
/// Answers are sent when this much has gathered, even while more requests wait in the buffer.
const QUEUED_BYTES_MAX: usize = 512 << 10;
/// A connection that another has replaced is closed after this time: its engine has been told by
/// then, should it be alive.
const REPLACED_GRACE: Duration = Duration::from_millis(LEASE_MS as u64);
/// How long the syncs that are under way may keep an orderly end waiting.
const FINISH_WAIT: Duration = Duration::from_secs(3);
/// How long, and for how many bytes, an ended connection is read on, so that the last answer is
/// not lost in the reset that unread bytes would cause.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 16 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed the connection")]
    PeerGone,
    #[error("the peer closed the connection inside a frame")]
    Cut,
    #[error("closed in order")]
    Closed,
    #[error("malformed frame: {0}")]
    Malformed(#[from] FrameError),
    #[error("{}: {}", .0.code, .0.message)]
    Denied(Denial),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("another connection has opened the replica")]
    Replaced,
    #[error("the daemon is stopping")]
    Stopping,
    #[error("connection lost: {0}")]
    Lost(io::Error),
}

/// Serves a connection until it ends.
pub(super) fn serve(shared: &Arc<Shared>, link: &Arc<Link>) {
    let peer = link.socket().peer();
    let mut session = Session {
        shared,
        link,
        phase: Phase::Greeting,
        tenant: None,
        last_frame: Instant::now(),
        replaced_since: None,
    };
    let end = session.run();
    let replica = session.tenant.as_ref().map(Tenant::replica);
    let epoch = session.tenant.as_ref().map(Tenant::epoch);
    session.phase.advance(Phase::Ended);
    let span = tracing::info_span!(
        "connection",
        %peer,
        replica = replica.map(tracing::field::display),
        epoch = epoch.map(tracing::field::display)
    );
    let _entered = span.enter();
    match &end {
        End::PeerGone | End::Closed | End::Stopping | End::Replaced => {
            tracing::info!("ended: {end}");
        }
        _ => tracing::warn!("ended: {end}"),
    }
    if matches!(end, End::Closed | End::Stopping) {
        link.wait_answered(FINISH_WAIT);
    }
    // What was answered last still has to reach a peer that reads.
    if link.send().is_ok() {
        linger(link);
    }
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    link: &'a Arc<Link>,
    phase: Phase,
    tenant: Option<Tenant>,
    last_frame: Instant,
    replaced_since: Option<Instant>,
}

impl Session<'_> {
    fn run(&mut self) -> End {
        let mut reader = FrameReader::new();
        match self.exchange(&mut reader) {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    fn exchange(&mut self, reader: &mut FrameReader) -> Result<std::convert::Infallible, End> {
        loop {
            while let Some(frame) = reader.next_frame()? {
                self.take(frame.header, frame.payload)?;
                if self.link.queued_bytes() > QUEUED_BYTES_MAX {
                    self.link.send().map_err(End::Lost)?;
                }
            }
            self.link.send().map_err(End::Lost)?;
            match reader.fill(&mut self.link.socket()) {
                Ok(0) if self.shared.is_stopping() => return Err(End::Stopping),
                Ok(0) if reader.is_inside_frame() => return Err(End::Cut),
                Ok(0) => return Err(End::PeerGone),
                Ok(_) => self.last_frame = Instant::now(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    reader.shrink();
                    self.tick()?;
                }
                Err(error) => return Err(End::Lost(error)),
            }
        }
    }

    /// Nothing has come for a while.
    fn tick(&mut self) -> Result<(), End> {
        let limits = &self.shared.limits;
        let patience = if self.tenant.is_some() {
            limits.idle_deadline
        } else {
            limits.open_deadline
        };
        if self.last_frame.elapsed() > patience {
            return Err(End::Silent(patience));
        }
        if let Some(tenant) = &self.tenant
            && !tenant.is_current()
            && self
                .replaced_since
                .get_or_insert_with(Instant::now)
                .elapsed()
                > REPLACED_GRACE
        {
            return Err(End::Replaced);
        }
        Ok(())
    }

    fn take(&mut self, header: Header, payload: &[u8]) -> Result<(), End> {
        if self.shared.is_stopping() {
            let denial = Denial::new(ErrorCode::Stopping, "this daemon is stopping");
            self.link.answer(&header, Answer::Refused(denial));
            return Err(End::Stopping);
        }
        match judge(self.phase, &header, self.link.unanswered()) {
            Verdict::Open => self.open(&header, payload),
            Verdict::Serve => self.serve(&header, payload),
            Verdict::Close => self.close(&header, payload),
            Verdict::Refuse(code) => {
                self.link.answer(
                    &header,
                    Answer::Refused(Denial::new(code, code.to_string())),
                );
                Ok(())
            }
            Verdict::End(code) => Err(self.deny(
                &header,
                Denial::new(code, format!("{code} ({:?})", header.opcode)),
            )),
        }
    }

    fn open(&mut self, header: &Header, payload: &[u8]) -> Result<(), End> {
        let granted = OpenRequest::decode(payload)
            .map_err(|error| Denial::new(ErrorCode::Malformed, error.to_string()))
            .and_then(|request| Tenant::open(&self.shared.store, &request, self.link.id()));
        match granted {
            Ok((tenant, opened)) => {
                tracing::info!(
                    replica = %tenant.replica(),
                    epoch = %tenant.epoch(),
                    peer = self.link.socket().peer(),
                    memory = ?opened.memory,
                    lease_remaining_ms = opened.lease_remaining_ms,
                    "replica opened"
                );
                self.phase.advance(Phase::Serving);
                self.tenant = Some(tenant);
                self.link.answer(header, Answer::Done(opened.encode()));
                Ok(())
            }
            Err(denial) => Err(self.deny(header, denial)),
        }
    }

    fn serve(&mut self, header: &Header, payload: &[u8]) -> Result<(), End> {
        let Some(tenant) = &self.tenant else {
            return Err(self.deny(header, not_open()));
        };
        let carried_out = execute::execute(
            tenant,
            self.link,
            &self.shared.disk_threads,
            header,
            payload,
        );
        match carried_out {
            Ok(Some(answer)) => self.link.answer(header, Answer::Done(answer)),
            Ok(None) => {}
            Err(denial) if is_final(&denial, tenant) => return Err(self.deny(header, denial)),
            Err(denial) => self.link.answer(header, Answer::Refused(denial)),
        }
        Ok(())
    }

    fn close(&mut self, header: &Header, payload: &[u8]) -> Result<(), End> {
        let Some(tenant) = &self.tenant else {
            return Err(self.deny(header, not_open()));
        };
        if !payload.is_empty() {
            let denial = Denial::new(ErrorCode::Malformed, "Close has no payload");
            self.link.answer(header, Answer::Refused(denial));
            return Ok(());
        }
        self.phase.advance(Phase::Closing);
        match tenant.close() {
            Ok(()) => {
                self.link.answer(header, Answer::Done(Bytes::new()));
                Err(End::Closed)
            }
            Err(denial) => Err(self.deny(header, denial)),
        }
    }

    fn deny(&self, header: &Header, denial: Denial) -> End {
        self.link.answer(header, Answer::Refused(denial.clone()));
        End::Denied(denial)
    }
}

fn not_open() -> Denial {
    Denial::new(ErrorCode::NotOpen, "nothing is open on this connection")
}

/// Whether nothing that this connection may still ask for can succeed.
fn is_final(denial: &Denial, tenant: &Tenant) -> bool {
    match denial.code {
        ErrorCode::Fenced => true,
        ErrorCode::NotOpen | ErrorCode::NoSuchReplica => !tenant.is_current(),
        _ => false,
    }
}

/// Lets the peer read the last answers: ends sending and reads on until it has closed.
fn linger(link: &Link) {
    let socket = link.socket();
    socket.shut_send();
    let until = Instant::now() + LINGER;
    let mut left = LINGER_BYTES_MAX;
    let mut waste = vec![0; 64 << 10];
    while left > 0 && Instant::now() < until {
        match io::Read::read(&mut &*socket, &mut waste) {
            Ok(0) => return,
            Ok(count) => left = left.saturating_sub(count),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => return,
        }
    }
}
