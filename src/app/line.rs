//! What a daemon and its heir say to each other, over a socket that is the heir's standard input.
//!
//! ```text
//!   daemon                                              heir: the same path, the same arguments
//!     │ listener + descriptor, …, given ──────────────▶ │ reads its configuration and certificates
//!     │ ◀───────────────────────────────────── ready    │
//!     │ lets go of the state                            │
//!     │ yours ────────────────────────────────────────▶ │ opens the state, accepts
//!     │ ◀──────────────────────────────────── serves    │
//!     │ finishes what it has, and ends ─ (end of line) ─▶ alone
//! ```
//!
//! One JSON value a packet, at most one descriptor with it. The end of the line is a word too: the
//! other one is gone. Versions meet here: fields and words may be added, none may change.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// No packet is longer: the longest says a path, of at most 107 bytes for a socket.
const PACKET: usize = 4096;

/// How long a packet may wait for the other one to read.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum Word {
    /// Here is a listening socket.
    Listener {
        /// Whose.
        of: Place,
    },
    /// Those were all.
    Given,
    /// The heir can be one: it understands its configuration.
    Ready,
    /// Nobody holds the state any more.
    Yours,
    /// The heir serves.
    Serves,
}

/// Where a socket listens, in the words of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// For visitors, in cleartext.
    Http(SocketAddr),
    /// For visitors, with TLS.
    Https(SocketAddr),
    /// For visitors, with QUIC.
    Quic(SocketAddr),
    /// The admin API by TCP.
    Admin(SocketAddr),
    /// The admin API's Unix socket.
    AdminSocket(PathBuf),
}

/// One end of the line.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    /// Both ends. Neither outlives an exec by itself.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        set_socket_timeout(&ours, Timeout::Send, Some(SEND_WITHIN))?;
        Ok((Self(ours), theirs))
    }

    /// The end that was given to this process.
    pub fn given(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Says a word, with a descriptor for one that comes with it. Blocks for a moment at most.
    pub fn say(&self, word: &Word, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let packet = serde_json::to_vec(word)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        sendmsg(&self.0, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next word; none at the end of the line. Blocks for so long at most; for ever without.
    pub fn hear(&self, within: Option<Duration>) -> io::Result<Option<(Word, Option<OwnedFd>)>> {
        set_socket_timeout(&self.0, Timeout::Recv, within)?;
        let mut packet = [0; PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let into = &mut [IoSliceMut::new(&mut packet)];
            match recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                got => break got?.bytes,
            }
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if got == 0 {
            return Ok(None);
        }
        let word = serde_json::from_slice(packet.get(..got).unwrap_or_default())?;
        Ok(Some((word, descriptor)))
    }

    /// Waits for one word and nothing else.
    pub fn expect(&self, word: &Word, within: Duration) -> io::Result<()> {
        match self.hear(Some(within)) {
            Ok(Some((heard, _))) if heard == *word => Ok(()),
            Ok(Some((heard, _))) => Err(io::Error::other(format!("it said {heard:?}"))),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_crosses_the_line_and_still_listens() {
        let (ours, theirs) = Line::pair().unwrap();
        let theirs = Line::given(theirs);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let word = Word::Listener { of: Place::Http(address) };
        ours.say(&word, Some(listener.as_fd())).unwrap();
        ours.say(&Word::Given, None).unwrap();
        drop(listener);
        let (heard, descriptor) = theirs.hear(Some(SEND_WITHIN)).unwrap().unwrap();
        assert_eq!(heard, word);
        let listener = std::net::TcpListener::from(descriptor.unwrap());
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap(), "who was queued is served");
        theirs.expect(&Word::Given, SEND_WITHIN).unwrap();
        let late = theirs.expect(&Word::Yours, Duration::from_millis(20)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        let gone = theirs.expect(&Word::Yours, SEND_WITHIN).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_words_are_stable() {
        let place = Place::Http(SocketAddr::from(([127, 0, 0, 1], 80)));
        assert_eq!(
            serde_json::to_string(&Word::Listener { of: place }).unwrap(),
            r#"{"say":"listener","of":{"http":"127.0.0.1:80"}}"#
        );
        assert_eq!(serde_json::to_string(&Word::Yours).unwrap(), r#"{"say":"yours"}"#);
    }
}
