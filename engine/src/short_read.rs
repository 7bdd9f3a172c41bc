//! Reads from a stream socket that spare the system call which only finds that nothing is left.
//!
//! A read that does not fill the buffer has emptied the socket, and the next bytes to come are told
//! anew (the runtime's polling is edge-triggered). So readiness is given up right away.

use std::io;

use bytes::BytesMut;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// A non-blocking stream socket.
pub(crate) trait Stream {
    /// Reads what is there into the room that the buffer has.
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize>;

    /// Runs `io`; when it says `WouldBlock` the socket is no longer taken for readable.
    fn try_io(&self, io: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(buffer)
    }

    fn try_io(&self, io: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(Interest::READABLE, io)
    }
}

impl Stream for UnixStream {
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(buffer)
    }

    fn try_io(&self, io: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(Interest::READABLE, io)
    }
}

/// Reads once into the room that the buffer has, which is not none. 0: the peer has ended.
///
/// # Errors
///
/// `WouldBlock` when nothing is there, otherwise as the system says.
pub(crate) fn read(stream: &impl Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    let room = buffer.capacity() - buffer.len();
    let mut taken = None;
    let asked = stream.try_io(|| {
        let bytes = *taken.insert(stream.try_read(buffer)?);
        if bytes == 0 || bytes >= room {
            Ok(())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    });
    match taken {
        Some(bytes) => Ok(bytes),
        None => asked.map(|()| 0),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Whether the socket is taken for readable without being asked.
    fn is_readable(stream: &UnixStream) -> bool {
        let mut ran = false;
        let _ = Stream::try_io(stream, || {
            ran = true;
            Ok(())
        });
        ran
    }

    #[test]
    fn a_short_read_ends_readiness_and_the_next_bytes_bring_it_back() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            let mut buffer = BytesMut::with_capacity(8);
            for _ in 0..3 {
                theirs.write_all(b"0123456789").await.unwrap();
                ours.readable().await.unwrap();
                assert_eq!(read(&ours, &mut buffer).unwrap(), 8);
                assert!(is_readable(&ours), "a full buffer says nothing");
                buffer.clear();
                assert_eq!(read(&ours, &mut buffer).unwrap(), 2);
                assert!(!is_readable(&ours));
                let nothing = read(&ours, &mut buffer).unwrap_err();
                assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
                buffer.clear();
            }
            theirs.write_all(b"end").await.unwrap();
            drop(theirs);
            ours.readable().await.unwrap();
            assert_eq!(read(&ours, &mut buffer).unwrap(), 3);
            ours.readable().await.unwrap();
            assert_eq!(read(&ours, &mut buffer).unwrap(), 0, "the end is told");
        });
    }
}
