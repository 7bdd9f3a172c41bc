//! The block protocol: one connection per engine and replica, pipelined frames, replies in any
//! order.
//!
//! A frame is a 64-byte little-endian [`Header`] and a payload of at most [`PAYLOAD_BYTES_MAX`].
//! Both carry a CRC32C. [`Decoder`] turns a byte stream into frames and owns no socket; the bodies
//! that some operations carry in their payload are in [`body`] and [`rebuild`]. The whole protocol
//! is told in `docs/wire-format.md`.
//!
//! Nothing read here is trusted: every length is bounded before it is used, and what does not
//! decode is a [`FrameError`] that ends the connection.

pub mod body;
mod code;
pub mod cursor;
mod decode;
mod header;
pub mod rebuild;
#[cfg(test)]
mod tests;

pub use code::{ErrorCode, Opcode};
pub use decode::{Decoder, Frame};
pub use header::{FrameError, HEADER_BYTES, Header, MAGIC, VERSION, flags};

/// The largest payload of a frame: 4 MiB of data and room for a body in front of it.
pub const PAYLOAD_BYTES_MAX: u32 = (4 << 20) + 4096;
/// The most bytes that one Read or Write carries.
pub const DATA_BYTES_MAX: u32 = 4 << 20;
/// The most bytes that one operation without data (Unmap, WriteZeroes) covers: bounds the time a
/// replica spends in it.
pub const RANGE_BYTES_MAX: u32 = 1 << 30;
/// The most requests an engine has unanswered on one connection. A replica closes a connection
/// that sends more (INV-12).
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// How long a reply lets an engine believe that nobody else serves the volume, counted from when
/// the request was sent. Short enough for a takeover within seconds, long enough to outlast a
/// scheduling hiccup.
pub const LEASE_MS: u32 = 3_000;
