//! Sockets of one UDP port, a lane each, and how packets find the lane of their connection.
//!
//! The kernel gives a packet to a socket by the addresses and ports at its ends. A client keeps its
//! connection when it gets another address (a phone that leaves the house, a router that forgets), and
//! then its packets come by another lane. So ids of connections name their lane, and a lane hands on
//! what is another's. Only packets that belong to an established connection have an id of ours; those
//! that begin one are served where they come.
//!
//! A process that hands its port over goes on with its connections: for each it opens a socket that is
//! connected to the client, which the kernel prefers, and leaves the shared one to the heir.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aws_lc_rs::rand;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Runtime, TokioRuntime, UdpPoller,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of our ids.
const ID: usize = 8;
/// Packets that may wait to be handed on; more are lost, and sent again by the client.
const WAITING: usize = 512;
/// The bit of a packet's first byte that says that it is not of an established connection.
const LONG: u8 = 0x80;
/// Bytes that the kernel may queue for a socket, if it is allowed: a burst of new clients. The usual
/// 208 KiB are some 170 packets.
const QUEUE: usize = 2 * 1024 * 1024;

/// Makes ids that name a lane: the first two bytes, by their remainder.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    lane: u16,
    lanes: u16,
}

impl Ids {
    /// For one of so many.
    pub fn new(lane: usize, lanes: usize) -> Self {
        let lanes = u16::try_from(lanes.max(1)).unwrap_or(u16::MAX);
        Self { lane: (lane % usize::from(lanes)) as u16, lanes }
    }

    fn mark(self, id: &mut [u8; ID]) {
        let number = u16::from_be_bytes([id[0], id[1]]);
        let below = number - number % self.lanes;
        let marked = below.checked_add(self.lane).unwrap_or_else(|| below - self.lanes + self.lane);
        id[..2].copy_from_slice(&marked.to_be_bytes());
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        // Fails only where the kernel has no random numbers; then the id is taken, and no other is.
        let _ = rand::fill(&mut id);
        self.mark(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The lane that a packet names, of so many; none when it begins a connection.
fn lane_of(packet: &[u8], lanes: usize) -> Option<usize> {
    let (first, [high, low, ..]) = packet.split_first()? else { return None };
    (first & LONG == 0).then(|| usize::from(u16::from_be_bytes([*high, *low])) % lanes)
}

/// A packet, or several of one sender, on the way to another lane.
#[derive(Debug)]
struct Strayed {
    bytes: Box<[u8]>,
    meta: RecvMeta,
}

/// Where packets that came by another lane wait.
#[derive(Debug, Default)]
pub struct Inbox {
    inner: Mutex<(VecDeque<Strayed>, Option<Waker>)>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Strayed>, Option<Waker>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, bytes: &[u8], meta: RecvMeta) {
        let mut inner = self.lock();
        if inner.0.len() < WAITING {
            inner.0.push_back(Strayed { bytes: bytes.into(), meta });
        }
        if let Some(waker) = inner.1.take() {
            waker.wake();
        }
    }

    /// Takes what waits into these buffers; wakes whoever asked when more comes.
    fn take(
        &self,
        context: &Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut inner = self.lock();
        inner.1 = Some(context.waker().clone());
        let mut taken = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some(strayed) = inner.0.pop_front() else { break };
            let length = strayed.bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&strayed.bytes[..length]);
            *meta =
                RecvMeta { len: length, stride: strayed.meta.stride.min(length), ..strayed.meta };
            taken += 1;
        }
        taken
    }
}

/// A lane: a socket, and the way to those beside it.
#[derive(Debug)]
pub struct Steered {
    socket: Arc<dyn AsyncUdpSocket>,
    lane: usize,
    /// Those of all lanes, this one's too.
    inboxes: Arc<[Inbox]>,
    /// Connected to clients; with the first, the shared one is another process's.
    own: Mutex<Option<Vec<Arc<dyn AsyncUdpSocket>>>>,
}

impl Steered {
    /// On this socket.
    pub fn new(socket: UdpSocket, lane: usize, inboxes: Arc<[Inbox]>) -> io::Result<Self> {
        Ok(Self {
            socket: TokioRuntime.wrap_udp_socket(socket)?,
            lane,
            inboxes,
            own: Mutex::default(),
        })
    }

    /// Leaves the port to another process, and goes on with these clients: our address that each knows,
    /// where the kernel has said it, and theirs. Returns those that cannot be kept.
    pub fn part(&self, clients: &[(Option<IpAddr>, SocketAddr)]) -> Vec<SocketAddr> {
        let mut own = Vec::with_capacity(clients.len());
        let mut lost = Vec::new();
        for (ours, client) in clients {
            match self.connected(*ours, *client) {
                Ok(socket) => own.push(socket),
                Err(_) => lost.push(*client),
            }
        }
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
        // Whoever reads has to look at the new ones.
        if let Some(waker) = self.inboxes[self.lane].lock().1.take() {
            waker.wake();
        }
        lost
    }

    fn connected(
        &self,
        ours: Option<IpAddr>,
        client: SocketAddr,
    ) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut local = self.socket.local_addr()?;
        // A socket for both families speaks of IPv4 in words of IPv6.
        let ours = ours.map(|ours| match (ours, local) {
            (IpAddr::V4(ours), SocketAddr::V6(_)) => IpAddr::V6(ours.to_ipv6_mapped()),
            (ours, _) => ours,
        });
        if let Some(ours) = ours {
            local.set_ip(ours);
        }
        let socket = open(local, true)?;
        let client = match (client, local) {
            (SocketAddr::V4(client), SocketAddr::V6(_)) => {
                SocketAddr::new(IpAddr::V6(client.ip().to_ipv6_mapped()), client.port())
            }
            (client, _) => client,
        };
        socket.connect(&client.into())?;
        TokioRuntime.wrap_udp_socket(socket.into())
    }

    /// Keeps what is this lane's, in order, and hands on the rest. How much is kept.
    fn sort(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        received: usize,
    ) -> usize {
        let lanes = self.inboxes.len();
        if lanes == 1 {
            return received;
        }
        let mut kept = 0;
        for at in 0..received {
            let packets = &buffers[at][..metas[at].len];
            // What the kernel joins has one sender, whose packets name one lane.
            match lane_of(packets, lanes).filter(|lane| *lane != self.lane) {
                Some(other) => self.inboxes[other].put(packets, metas[at]),
                None => {
                    buffers.swap(kept, at);
                    metas.swap(kept, at);
                    kept += 1;
                }
            }
        }
        kept
    }
}

impl AsyncUdpSocket for Steered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let taken = self.inboxes[self.lane].take(context, buffers, metas);
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        if let Some(own) = &*self.own.lock().unwrap_or_else(PoisonError::into_inner) {
            for socket in own {
                // An error is one client's: it has closed its port.
                if let Poll::Ready(Ok(received)) = socket.poll_recv(context, buffers, metas) {
                    return Poll::Ready(Ok(received));
                }
            }
            return Poll::Pending;
        }
        loop {
            let received = std::task::ready!(self.socket.poll_recv(context, buffers, metas))?;
            let kept = self.sort(buffers, metas, received);
            if kept > 0 {
                return Poll::Ready(Ok(kept));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// A UDP socket, which joins others of the same address or is refused beside them.
fn open(address: SocketAddr, join: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(join)?;
    socket.set_nonblocking(true)?;
    // A shorter queue costs packets in a burst, and clients send them again.
    let _ = socket.set_recv_buffer_size(QUEUE);
    let _ = socket.set_send_buffer_size(QUEUE);
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sockets for so many lanes, at least one for each; those that are `held` are used, all of them.
pub fn ports(
    address: SocketAddr,
    lanes: usize,
    held: Vec<UdpSocket>,
) -> io::Result<Vec<UdpSocket>> {
    if held.is_empty() {
        // Fails where a socket that joins others would join another program's. Closed again at once.
        open(address, false)?;
    }
    let mut sockets = held;
    while sockets.len() < lanes {
        sockets.push(open(address, true)?.into());
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_lane() {
        for lanes in [1, 2, 3, 7, 1_024] {
            for lane in 0..lanes.min(9) {
                let ids = Ids::new(lane, lanes);
                for bytes in [[0, 0], [0xff, 0xff], [0xff, 0xfe], [0x12, 0x34]] {
                    let mut id = [0x55; ID];
                    id[..2].copy_from_slice(&bytes);
                    ids.mark(&mut id);
                    let mut packet = vec![0x40];
                    packet.extend(id);
                    assert_eq!(lane_of(&packet, lanes), Some(lane), "{lanes} {bytes:?}");
                    packet[0] |= LONG;
                    assert_eq!(lane_of(&packet, lanes), None);
                }
            }
        }
        assert_eq!(lane_of(&[0x40, 1], 2), None);
        assert_eq!(lane_of(&[], 2), None);
    }

    #[test]
    fn an_inbox_has_an_end_and_cuts_what_does_not_fit() {
        let inbox = Inbox::default();
        for _ in 0..WAITING + 10 {
            inbox.put(&[7; 100], RecvMeta { len: 100, stride: 100, ..RecvMeta::default() });
        }
        assert_eq!(inbox.lock().0.len(), WAITING);
        let context = Context::from_waker(Waker::noop());
        let (mut one, mut two) = ([0; 200], [0; 50]);
        let mut buffers = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        let mut metas = [RecvMeta::default(); 2];
        assert_eq!(inbox.take(&context, &mut buffers, &mut metas), 2);
        assert_eq!((metas[0].len, metas[1].len, metas[1].stride), (100, 50, 50));
        assert_eq!(one[..100], [7; 100]);
    }

    #[test]
    fn a_port_of_another_program_is_refused() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = ports(any, 1, Vec::new()).expect("a port");
        let address = first[0].local_addr().expect("an address");
        let error = ports(address, 2, Vec::new()).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let both = ports(address, 2, first).expect("joined");
        assert_eq!(both.len(), 2);
    }
}
