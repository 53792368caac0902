//! The house changes hands: a new process of the same path and arguments takes the listening sockets,
//! the state and the instances over, and this one finishes what it has.
//!
//! Until the heir has said that it serves, this process can take everything back, and its proxy serves
//! all the time. Sockets are handed over open, so that nobody in the kernel's queue is lost.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::line::{Line, Place, Word};
use super::{House, end_log};
use crate::admin;
use crate::proxy;
use crate::proxy::listener::{Held, Shared};
use crate::runtime::files;
use crate::telemetry::access_log::AccessLog;

/// The variable that tells a process that its standard input is the line to the daemon with this
/// process id.
const HEIR_OF: &str = "SWITCHBACK_HEIR_OF";

/// What the heir gets to read its configuration and its certificates.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What the heir gets to open the state and to listen; nobody is told no meanwhile.
const SERVES_WITHIN: Duration = Duration::from_secs(30);

/// What the daemon gets to end its control plane: admin requests under way have 5 s.
const YOURS_WITHIN: Duration = Duration::from_secs(60);

/// What came with the line to a former process.
#[derive(Debug)]
pub struct Heritage {
    line: Arc<Line>,
    pub(super) listeners: Vec<Held>,
    pub(super) admin: admin::Held,
    pub(super) alone: CancellationToken,
}

impl Heritage {
    /// What this process inherits; none when nobody started it as an heir.
    ///
    /// # Errors
    /// When the line breaks before all was said.
    pub fn take() -> io::Result<Option<Self>> {
        let parent = std::env::var(HEIR_OF).ok();
        if parent.is_none_or(|pid| pid != parent_id().to_string()) {
            return Ok(None);
        }
        let line = Line::given(io::stdin().as_fd().try_clone_to_owned()?);
        // Nobody but the line shall find the socket.
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        let mut heritage = Self {
            line: Arc::new(line),
            listeners: Vec::new(),
            admin: admin::Held::default(),
            alone: CancellationToken::new(),
        };
        loop {
            match heritage.line.hear(Some(READY_WITHIN))? {
                Some((Word::Listener { of }, Some(socket))) => heritage.put(of, socket),
                Some((Word::Given, _)) => return Ok(Some(heritage)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn put(&mut self, place: Place, socket: OwnedFd) {
        match place {
            Place::Http(wanted) => {
                let socket = Shared::Tcp(socket.into());
                self.listeners.push(Held { wanted, secure: false, socket });
            }
            Place::Https(wanted) => {
                let socket = Shared::Tcp(socket.into());
                self.listeners.push(Held { wanted, secure: true, socket });
            }
            Place::Quic(wanted) => {
                let socket = Shared::Udp(socket.into());
                self.listeners.push(Held { wanted, secure: true, socket });
            }
            Place::Admin(wanted) => self.admin.tcp.push((wanted, socket.into())),
            Place::AdminSocket(path) => self.admin.unix = Some((path, socket.into())),
        }
    }

    /// Says that this process can take over, and waits until the state is free.
    pub(super) async fn wait_for_state(&self) -> io::Result<()> {
        let line = Arc::clone(&self.line);
        blocking(move || {
            line.say(&Word::Ready, None)?;
            line.expect(&Word::Yours, YOURS_WITHIN)
        })
        .await
    }

    /// Says that this process serves. From now on it is told by `alone` when the former one is gone.
    pub(super) fn serve(self) -> io::Result<()> {
        self.line.say(&Word::Serves, None)?;
        std::thread::Builder::new().name("former".to_owned()).spawn(move || {
            // Nothing more is said: what is heard is the end.
            let _end = self.line.hear(None);
            self.alone.cancel();
        })?;
        Ok(())
    }
}

/// The way out of a process whose heir serves.
pub struct Leaving {
    proxy: proxy::Proxy,
    log: Option<(AccessLog, std::thread::JoinHandle<()>)>,
    /// Closed at the very end, which tells the heir.
    line: Line,
    /// The heir's process id.
    pub heir: u32,
}

impl Leaving {
    /// Answers what comes on open connections, and tells each client to go elsewhere with it; returns
    /// when all have gone, or at the deadline.
    pub async fn finish(self, deadline: Duration) {
        self.proxy.hand_over(deadline).await;
        end_log(self.log).await;
        drop(self.line);
    }
}

/// A handover that failed: the house, which serves on, and why.
pub struct Stayed {
    /// Whole again.
    pub house: House,
    /// One sentence.
    pub why: String,
}

/// A handover that failed so that this process cannot go on either.
pub enum Failed {
    /// It goes on.
    Stayed(Box<Stayed>),
    /// Its own control plane could not be opened again.
    Lost(String),
}

impl House {
    /// Starts this very program anew, by the path and with the arguments of this process, and hands
    /// everything over to it.
    ///
    /// Cancel safety: must not be dropped midway.
    pub async fn hand_over(self) -> Result<Leaving, Failed> {
        let (line, mut heir) = match begin_heir() {
            Ok(begun) => begun,
            Err(why) => return Err(stayed(self, why)),
        };
        let line = Arc::new(line);
        let ready = match self.give(&line) {
            Ok(()) => hears(&line, Word::Ready, READY_WITHIN).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ready {
            let why = format!("{}, and nothing has changed", end(&mut heir, &error).await);
            return Err(stayed(self, why));
        }
        let Self { proxy, ground, control, log } = self;
        let (services, held) = control.let_go().await;
        let told = line.say(&Word::Yours, None);
        let serves = match told {
            Ok(()) => hears(&line, Word::Serves, SERVES_WITHIN).await,
            Err(error) => Err(error),
        };
        let Err(error) = serves else {
            let line = Arc::into_inner(line);
            let Some(line) = line else { return Err(Failed::Lost("the line is gone".to_owned())) };
            return Ok(Leaving { proxy, log, line, heir: heir.id() });
        };
        let why = end(&mut heir, &error).await;
        let again = async {
            let prepared = ground.prepare(services).await?;
            prepared.begin(&ground, proxy.addresses(), held).await
        };
        match again.await {
            Ok(control) => Err(stayed(Self { proxy, ground, control, log }, why)),
            Err(error) => Err(Failed::Lost(format!("{why}; and taking back failed: {error}"))),
        }
    }

    /// Gives the heir the sockets.
    fn give(&self, line: &Line) -> io::Result<()> {
        for held in self.proxy.sockets()? {
            let of = match held.socket {
                Shared::Udp(_) => Place::Quic(held.wanted),
                Shared::Tcp(_) if held.secure => Place::Https(held.wanted),
                Shared::Tcp(_) => Place::Http(held.wanted),
            };
            line.say(&Word::Listener { of }, Some(held.socket.as_fd()))?;
        }
        let admin = self.control.admin.held();
        for (wanted, socket) in &admin.tcp {
            let of = Place::Admin(*wanted);
            line.say(&Word::Listener { of }, Some(socket.as_fd()))?;
        }
        if let Some((path, socket)) = &admin.unix {
            let of = Place::AdminSocket(path.clone());
            line.say(&Word::Listener { of }, Some(socket.as_fd()))?;
        }
        line.say(&Word::Given, None)
    }
}

/// Starts the heir: the path and the arguments of this process, at the end of a new line.
fn begin_heir() -> Result<(Line, Child), String> {
    let (line, theirs) =
        Line::pair().map_err(|error| format!("no line to a new process: {error}"))?;
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_else(|| OsString::from("switchback"));
    let mut command = Command::new(&program);
    if let Some(before) = files::before() {
        command.env(files::VARIABLE, before.to_string());
    }
    let heir = command
        .args(words)
        .env(HEIR_OF, std::process::id().to_string())
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
    Ok((line, heir))
}

fn stayed(house: House, why: String) -> Failed {
    Failed::Stayed(Box::new(Stayed { house, why }))
}

async fn hears(line: &Arc<Line>, word: Word, within: Duration) -> io::Result<()> {
    let line = Arc::clone(line);
    blocking(move || line.expect(&word, within)).await
}

/// Ends an heir that did not do its part, and says what it did.
async fn end(heir: &mut Child, error: &io::Error) -> String {
    // It has closed the line, or has had its time.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let by_itself = heir.try_wait().ok().flatten();
    if by_itself.is_none() {
        let _ended = heir.kill();
        let _reaped = heir.wait();
    }
    match by_itself {
        Some(status) => format!("the new process ended ({status}) before it served"),
        None if error.kind() == io::ErrorKind::TimedOut => {
            "the new process did not serve in time and was killed".to_owned()
        }
        None => format!("the new process could not be talked to ({error}) and was killed"),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
