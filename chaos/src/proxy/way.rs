//! One direction of one connection: read, wait as the rules say, write.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::rules::{Passage, Way};

/// Bytes of one read.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes under way in one direction of one connection, at most: 200 ms of 20 MiB per second.
const UNDER_WAY_BYTES_MAX: usize = 4 << 20;

/// Bytes that were read and not written yet.
#[derive(Debug)]
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// What happened next.
enum Step {
    /// So many bytes are in the buffer; 0: the sender has ended.
    Read(usize),
    /// The first piece has arrived.
    Due,
    /// Other rules hold.
    Ruled,
}

/// Why a direction ended.
#[derive(Debug)]
pub(super) enum End {
    /// The sender ended it, and everything before has arrived.
    Finished,
    /// Bytes were lost, and now others would get through.
    Lossy,
}

/// One direction.
pub(super) struct Pump<'a> {
    pub(super) from: ReadHalf<'a>,
    pub(super) to: WriteHalf<'a>,
    pub(super) rules: watch::Receiver<Way>,
    pub(super) random: StdRng,
}

impl Pump<'_> {
    /// Moves bytes until one side ends or breaks.
    pub(super) async fn run(mut self) -> io::Result<End> {
        let mut line = Line::default();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let way = *self.rules.borrow_and_update();
            if line.lossy && way.passage != Passage::Swallowed {
                return Ok(End::Lossy);
            }
            let due = line.due(way);
            let reads = !line.ended && line.bytes < UNDER_WAY_BYTES_MAX;
            let step = tokio::select! {
                changed = self.rules.changed() => {
                    // The proxy is going; so are its connections.
                    changed.map_err(|_| io::ErrorKind::ConnectionAborted)?;
                    Step::Ruled
                }
                () = at(due) => Step::Due,
                read = self.from.read(&mut buffer), if reads => Step::Read(read?),
            };
            match step {
                Step::Ruled => {}
                Step::Read(0) => line.ended = true,
                Step::Read(count) => {
                    let due = line.arrival(way, &mut self.random);
                    let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                    line.push(Piece { due, bytes });
                }
                Step::Due => {
                    let Some(piece) = line.pop() else {
                        self.to.shutdown().await?;
                        return Ok(End::Finished);
                    };
                    if way.passage == Passage::Swallowed {
                        line.lossy = true;
                    } else {
                        self.write(&mut line, &piece.bytes).await?;
                    }
                }
            }
        }
    }

    /// Writes a piece at the pace that holds now.
    async fn write(&mut self, line: &mut Line, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes).await?;
        if let Some(pace) = self.rules.borrow().bytes_per_second {
            let nanoseconds = bytes.len() as u64 * 1_000_000_000 / pace.max(1);
            let busy_from = line.free_at.max(Instant::now());
            line.free_at = busy_from + Duration::from_nanos(nanoseconds);
        }
        Ok(())
    }
}

async fn at(due: Option<Instant>) {
    match due {
        // A sleep takes a millisecond at least.
        Some(due) if due <= Instant::now() => {}
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What is under way.
#[derive(Debug)]
struct Line {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// When the narrowest place takes the next piece.
    free_at: Instant,
    /// When the last piece arrives: no later one does earlier.
    last_due: Instant,
    /// The sender has ended.
    ended: bool,
    /// Bytes were swallowed.
    lossy: bool,
}

impl Default for Line {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            pieces: VecDeque::new(),
            bytes: 0,
            free_at: now,
            last_due: now,
            ended: false,
            lossy: false,
        }
    }
}

impl Line {
    /// When the next piece, or the end behind the last one, can be passed on.
    fn due(&self, way: Way) -> Option<Instant> {
        let first = match self.pieces.front() {
            Some(piece) => piece.due,
            None if self.ended => self.last_due,
            None => return None,
        };
        match way.passage {
            Passage::Held => None,
            Passage::Swallowed if self.pieces.is_empty() => None,
            Passage::Swallowed => Some(first),
            Passage::Open => Some(first.max(self.free_at)),
        }
    }

    /// When what was read just now arrives.
    fn arrival(&mut self, way: Way, random: &mut StdRng) -> Instant {
        let jitter = way.jitter.mul_f64(random.random_range(0.0..1.0));
        self.last_due = self.last_due.max(Instant::now() + way.delay + jitter);
        self.last_due
    }

    fn push(&mut self, piece: Piece) {
        self.bytes += piece.bytes.len();
        self.pieces.push_back(piece);
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.bytes.len();
        Some(piece)
    }
}
