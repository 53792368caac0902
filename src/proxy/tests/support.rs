//! A proxy on a free port, origins that do what a story says, and clients that see every byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::analysis::scorecard::{Row, Scorecard};
use crate::model::id::{InstanceId, RevisionId, ServiceName};
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::{Side, Weight};
use crate::proxy::{Proxy, Settings, bind};
use crate::routing::budget::Budget;
use crate::routing::endpoint::{Endpoint, EndpointId};
use crate::routing::live::Live;
use crate::routing::pool::Pool;
use crate::routing::settings::ServiceSettings;
use crate::routing::split::Salt;
use crate::routing::table::{HostPattern, Route, RoutingTable, ServiceEntry, SideEntry};
use crate::telemetry::traffic::{Count, Traffic};

/// Longer than anything in a story takes.
pub const LONG: Duration = Duration::from_secs(20);

static NEXT_ENDPOINT: AtomicU64 = AtomicU64::new(1);

pub fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    endpoint_of(address, UpstreamProtocol::Http1)
}

pub fn endpoint_of(address: SocketAddr, protocol: UpstreamProtocol) -> Arc<Endpoint> {
    let id = EndpointId(NEXT_ENDPOINT.fetch_add(1, Ordering::Relaxed));
    let endpoint = Endpoint::new(id, InstanceId::new("i"), address, protocol);
    endpoint.set_healthy(true);
    endpoint
}

pub fn side(revision: u32, endpoints: &[Arc<Endpoint>]) -> SideEntry {
    SideEntry {
        revision: RevisionId(revision),
        pool: Arc::new(Pool::new(RevisionId(revision), endpoints.to_vec())),
        scorecard: Arc::new(Scorecard::new(8)),
        instances: None,
    }
}

/// A proxy over one service, `web`, on every host.
pub struct Rig {
    pub proxy: Proxy,
    pub live: Live,
    pub traffic: Arc<Traffic>,
    pub entry: Mutex<ServiceEntry>,
}

impl Rig {
    pub fn new(stable: SideEntry) -> Self {
        Self::with(stable, None, 0.0, ServiceSettings::default(), settings())
    }

    pub fn canary(stable: SideEntry, canary: SideEntry, percent: f64) -> Self {
        Self::with(stable, Some(canary), percent, ServiceSettings::default(), settings())
    }

    pub fn with(
        stable: SideEntry,
        canary: Option<SideEntry>,
        percent: f64,
        service: ServiceSettings,
        settings: Settings,
    ) -> Self {
        let entry = ServiceEntry {
            name: ServiceName::new("web").expect("a name"),
            settings: Arc::new(service),
            policy: None,
            maintenance: None,
            canary_weight: Weight::from_percent(percent).expect("a weight"),
            salt: Salt::new(7),
            overdue: Duration::from_secs(60),
            stable: Some(stable),
            budget: canary.is_some().then(|| Arc::new(Budget::new(8))),
            canary,
            warm: None,
            fresh: None,
            mirror: None,
        };
        watch_log();
        let live = Live::default();
        let traffic = Arc::new(Traffic::new(settings.workers.max(1)));
        let proxy = bind(settings, live.clone(), Arc::clone(&traffic)).expect("a free port");
        let rig = Self { proxy, live, traffic, entry: Mutex::new(entry) };
        rig.publish(|_| {});
        rig
    }

    /// Changes the service and publishes it.
    pub fn publish(&self, change: impl FnOnce(&mut ServiceEntry)) {
        let mut entry = self.entry.lock().expect("no panic");
        change(&mut entry);
        self.live.publish(table(&entry));
    }

    pub fn http(&self) -> SocketAddr {
        self.proxy.addresses().http[0]
    }

    pub fn count(&self, side: Side, row: Row) -> u64 {
        let entry = self.entry.lock().expect("no panic");
        entry.side(side).expect("this side").scorecard.sample().count(row)
    }

    /// The rows of a side, in order, once they add up to `total`; no client is kept on a side here, so
    /// that no error is repeated.
    pub async fn rows(&self, side: Side, total: u64) -> [u64; Row::COUNT - 1] {
        until(|| Row::ALL.iter().map(|row| self.count(side, *row)).sum::<u64>() >= total).await;
        assert_eq!(self.count(side, Row::Repeated), 0);
        std::array::from_fn(|row| self.count(side, Row::ALL[row]))
    }

    pub fn total(&self, count: Count) -> u64 {
        self.traffic.total(count)
    }
}

/// Every story also tells that nothing went wrong that nobody looked for.
impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.total(Count::Panics), 0, "a connection panicked");
            assert_eq!(ERRORS.load(Ordering::Relaxed), 0, "the proxy logged an error");
        }
    }
}

/// Lines of level ERROR that the proxy logged, in any story.
static ERRORS: AtomicU64 = AtomicU64::new(0);

struct Errors;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let about = event.metadata();
        if *about.level() == tracing::Level::ERROR && about.target().contains("::proxy") {
            ERRORS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn watch_log() {
    use tracing_subscriber::layer::SubscriberExt;
    static WATCHING: std::sync::Once = std::sync::Once::new();
    WATCHING.call_once(|| {
        let watching = tracing_subscriber::registry().with(Errors);
        tracing::subscriber::set_global_default(watching).expect("the first to watch");
    });
}

pub fn table(entry: &ServiceEntry) -> RoutingTable {
    let route = Route { host: HostPattern::Any, path: "/".to_owned() };
    RoutingTable::new(1, vec![(entry.clone(), vec![route])])
}

pub fn settings() -> Settings {
    Settings { http: vec![any()], workers: 1, ..Settings::default() }
}

pub fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Waits for a state.
pub async fn until(state: impl Fn() -> bool) {
    timeout(LONG, async {
        while !state() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the state in time");
}

/// An origin that does with each connection what it is told; the number counts connections from 0.
pub async fn origin<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let count = AtomicUsize::new(0);
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, count.fetch_add(1, Ordering::Relaxed)));
        }
    });
    address
}

/// An origin that answers each request on a connection with what `answer` makes of its head and body.
pub async fn answering<F>(answer: F) -> SocketAddr
where
    F: Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    origin(move |mut stream, _| {
        let answer = Arc::clone(&answer);
        async move {
            let mut buffer = Vec::new();
            while let Some((head, body)) = read_message(&mut stream, &mut buffer).await {
                if stream.write_all(&answer(&head, &body)).await.is_err() {
                    break;
                }
            }
        }
    })
    .await
}

/// An origin that says who it is.
pub async fn saying(word: &'static str) -> SocketAddr {
    answering(move |_, _| ok(word)).await
}

pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An address on which nobody listens.
pub async fn nobody() -> SocketAddr {
    // Bound for good, so that no other test is given it; it does not listen, so who connects is refused.
    let held = tokio::net::TcpSocket::new_v4().expect("a socket");
    held.bind(any()).expect("a port");
    let address = held.local_addr().expect("an address");
    std::mem::forget(held);
    address
}

/// Reads one message: its head as text, and its body by `Content-Length`, chunks, or nothing.
pub async fn read_message(
    stream: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<(String, Vec<u8>)> {
    read_any(stream, buffer, false).await
}

/// Like [`read_message`], for the answer to a HEAD.
pub async fn read_any(
    stream: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut Vec<u8>,
    bodiless: bool,
) -> Option<(String, Vec<u8>)> {
    let end = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let lower = head.to_ascii_lowercase();
    if bodiless {
        return Some((head, Vec::new()));
    }
    if lower.contains("transfer-encoding: chunked") {
        let end = loop {
            let trailers = buffer.starts_with(b"0\r\n").then_some(0);
            if let Some(last) = trailers.or_else(|| find(buffer, b"\r\n0\r\n"))
                && let Some(end) = find(&buffer[last..], b"\r\n\r\n")
            {
                break last + end + 4;
            }
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        };
        return Some((head, buffer.drain(..end).collect()));
    }
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
        .unwrap_or(0_usize);
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, buffer.drain(..length).collect()))
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A client that keeps its connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("to send");
    }

    pub async fn read(&mut self) -> (String, String) {
        let read = timeout(LONG, read_message(&mut self.stream, &mut self.buffer)).await;
        let (head, body) = read.expect("an answer in time").expect("an answer");
        (head, String::from_utf8_lossy(&body).into_owned())
    }

    pub async fn read_head(&mut self) -> String {
        let read = timeout(LONG, read_any(&mut self.stream, &mut self.buffer, true)).await;
        read.expect("an answer in time").expect("an answer").0
    }

    /// So many bytes, as text.
    pub async fn read_body(&mut self, length: usize) -> String {
        String::from_utf8_lossy(&self.read_bytes(length).await).into_owned()
    }

    /// So many bytes.
    pub async fn read_bytes(&mut self, length: usize) -> Vec<u8> {
        let reading = async {
            while self.buffer.len() < length {
                assert!(self.stream.read_buf(&mut self.buffer).await.expect("bytes") > 0, "an end");
            }
        };
        timeout(LONG, reading).await.expect("the body in time");
        self.buffer.drain(..length).collect()
    }

    /// What was read and not asked for yet.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Everything until the connection ends.
    pub async fn read_to_end(&mut self) -> String {
        let mut all = std::mem::take(&mut self.buffer);
        let read = timeout(LONG, self.stream.read_to_end(&mut all)).await;
        // A reset is an end too.
        let _ = read.expect("an end in time");
        String::from_utf8_lossy(&all).into_owned()
    }

    pub async fn get(&mut self, path: &str) -> (String, String) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: app.example\r\n\r\n")).await;
        self.read().await
    }
}

/// One GET on a connection of its own: status and body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = Client::new(address).await.get(path).await;
    (status(&head), body)
}

pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

/// The value of a field in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}
