//! Names that a client asks for and that have no certificate yet: somebody is told, and the handshake
//! waits for what comes of it.

use tokio::sync::{mpsc, oneshot};

/// A name, and where to say that it was decided.
pub type Asked = (String, oneshot::Sender<()>);

/// Tells somebody of names.
#[derive(Debug, Clone)]
pub struct Wanted {
    names: mpsc::Sender<Asked>,
}

impl Wanted {
    /// Names go into this channel. It is bounded by whoever made it; when it is full, the handshake
    /// fails.
    #[must_use]
    pub fn new(names: mpsc::Sender<Asked>) -> Self {
        Self { names }
    }

    /// Waits until it was decided about a name; whether there is a certificate now shows itself. The
    /// handshake's deadline ends the wait.
    pub(super) async fn get(&self, name: String) {
        let (decided, decision) = oneshot::channel();
        if self.names.try_send((name, decided)).is_ok() {
            let _ = decision.await;
        }
    }
}
