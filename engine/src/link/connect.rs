//! The life of a link: connect, Open, then pump until something breaks.

use std::io;
use std::rc::Rc;

use ankole_proto::Epoch;
use ankole_proto::wire::body::{BodyError, Opened};
use ankole_proto::wire::{ErrorCode, Frame, FrameError, Header, Opcode};
use tokio::time::timeout;

use super::pump::{self, Incoming};
use super::socket::Socket;
use super::{LinkSpec, OPEN_TIMEOUT, State};
use crate::mirror::event::{Event, LinkFailure};

/// What ended a link.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Connect(#[from] super::socket::ConnectError),
    #[error("the connection broke: {0}")]
    Broke(#[from] io::Error),
    #[error("the blockd closed the connection")]
    Ended,
    #[error("the blockd sent something else than frames: {0}")]
    Frame(#[from] FrameError),
    #[error("the blockd's answer to Open is not one: {0}")]
    Body(#[from] BodyError),
    #[error("the blockd sent {0:?}, which answers no request")]
    Unasked(Opcode),
    #[error("the replica did not answer Open in time")]
    OpenTimeout,
    #[error("the replica refused Open: {error}{}{message}", if message.is_empty() { "" } else { ": " })]
    OpenRefused { error: ErrorCode, message: String },
    #[error("fenced by epoch {0}")]
    Fenced(Epoch),
}

impl LinkError {
    fn into_failure(self) -> LinkFailure {
        match self {
            Self::Fenced(epoch) => LinkFailure::Fenced(epoch),
            Self::OpenRefused { error, .. } if !is_passing(error) => {
                LinkFailure::Refused(self.to_string())
            }
            other => LinkFailure::Transport(other.to_string()),
        }
    }
}

/// Whether an Open that was refused for this may succeed later, with nothing about the replica
/// mended.
pub const fn is_passing(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::Overloaded | ErrorCode::Stopping | ErrorCode::NoSpace | ErrorCode::NotOpen
    )
}

/// Runs the link from its first packet to its `LinkClosed`.
pub(super) async fn live(spec: LinkSpec, state: Rc<State>) {
    let error = match open(&spec, &state).await {
        Ok((socket, incoming)) => pump::run(&state, socket, incoming).await,
        Err(error) => error,
    };
    state.close(error.into_failure());
}

async fn open(spec: &LinkSpec, state: &State) -> Result<(Rc<Socket>, Incoming), LinkError> {
    let socket = Socket::connect(&spec.address, &spec.node, &spec.own_node).await?;
    let socket = Rc::new(socket);
    let mut incoming = Incoming::default();
    // The lease counts from before the frame left.
    let sent_after_start = spec.clock_start.elapsed();
    let reply = timeout(OPEN_TIMEOUT, exchange(spec, &socket, &mut incoming))
        .await
        .map_err(|_| LinkError::OpenTimeout)??;
    let opened = opened(&reply)?;
    *state.socket.borrow_mut() = Some(Rc::clone(&socket));
    (state.deliver)(Event::LinkOpened {
        replica: spec.replica,
        link: spec.link,
        opened,
        sent_after_start,
    });
    Ok((socket, incoming))
}

async fn exchange(
    spec: &LinkSpec,
    socket: &Socket,
    incoming: &mut Incoming,
) -> Result<Frame, LinkError> {
    let frame = Frame::new(Header::request(Opcode::Open, 0), spec.open.encode());
    pump::write_all(socket, frame).await?;
    let reply = incoming.next(socket).await?;
    if !reply.header.is_reply()
        || reply.header.opcode != Opcode::Open
        || reply.header.request_id != 0
    {
        return Err(LinkError::Unasked(reply.header.opcode));
    }
    Ok(reply)
}

fn opened(reply: &Frame) -> Result<Opened, LinkError> {
    match reply.header.error {
        None => Ok(Opened::decode(&reply.payload)?),
        Some(ErrorCode::Fenced) => Err(LinkError::Fenced(Epoch::from_raw(reply.header.sequence))),
        Some(error) => Err(LinkError::OpenRefused {
            error,
            message: message(&reply.payload),
        }),
    }
}

/// The text in a refusal, cut where the protocol cuts it.
fn message(payload: &[u8]) -> String {
    let cut = payload.len().min(ErrorCode::MESSAGE_BYTES_MAX);
    String::from_utf8_lossy(payload.get(..cut).unwrap_or_default()).into_owned()
}
