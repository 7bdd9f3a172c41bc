//! A connection's socket: TCP or unix, both blocking.

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendFlags};

/// One accepted connection.
#[derive(Debug)]
pub enum Socket {
    /// From any host.
    Tcp(TcpStream),
    /// From the same host.
    Unix(UnixStream),
}

/// Whether a send may wait for room in the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Up to the socket's send timeout.
    ForRoom,
    /// Not at all: the caller has others to serve.
    Never,
}

impl Socket {
    /// Sets what every connection has: no delay, and bounded waits in either direction. A receive
    /// that waits longer than `receive` fails with `WouldBlock`, and so does a send.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub fn prepare(&self, receive: Duration, send: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(receive))?;
                stream.set_write_timeout(Some(send))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(receive))?;
                stream.set_write_timeout(Some(send))
            }
        }
    }

    /// Sends the first of these bytes and tells how many.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there was no room (in time), otherwise as the system says.
    pub fn send(&self, parts: &[IoSlice<'_>], wait: Wait) -> io::Result<usize> {
        let flags = match wait {
            Wait::ForRoom => SendFlags::NOSIGNAL,
            Wait::Never => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        };
        let sent = rustix::net::sendmsg(
            self.as_fd(),
            parts,
            &mut SendAncillaryBuffer::default(),
            flags,
        )?;
        Ok(sent)
    }

    /// Ends both directions: whoever waits on the socket wakes.
    pub fn shut(&self) {
        // A socket that is already dead has nothing left to end.
        let _already_dead = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Ends receiving only: what is to be answered still goes out.
    pub fn shut_receive(&self) {
        let _already_dead = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Read),
            Self::Unix(stream) => stream.shutdown(Shutdown::Read),
        };
    }

    /// Ends sending only: the peer reads the end behind what was sent.
    pub fn shut_send(&self) {
        let _already_dead = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// The peer, for log lines.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream
                .peer_addr()
                .map_or_else(|_| "tcp".to_owned(), |address| address.to_string()),
            Self::Unix(_) => "unix".to_owned(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match *self {
            Socket::Tcp(stream) => {
                let mut stream: &TcpStream = stream;
                stream.read(out)
            }
            Socket::Unix(stream) => {
                let mut stream: &UnixStream = stream;
                stream.read(out)
            }
        }
    }
}
