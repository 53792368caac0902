//! One running copy of a revision, as a runtime reports it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::id::{InstanceId, RevisionId, RolloutId, ServiceName};

/// A running copy of a revision and the address on which it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What the runtime calls it.
    pub id: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a launched instance is marked with, so that a later daemon knows whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// Its service.
    pub service: ServiceName,
    /// Its revision.
    pub revision: RevisionId,
    /// The rollout that launched it.
    pub rollout: RolloutId,
    /// 0 .. replicas.
    pub replica: u32,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Exit {
    /// Exit code, when it exited by itself.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed it for memory.
    pub out_of_memory: bool,
    /// What its last output tells of what it is not allowed to do: a sentence that says what to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.out_of_memory {
            return f.write_str("was killed for exceeding its memory limit (OOM)");
        }
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "was ended by signal {signal}"),
            (Some(code), None) => write!(f, "exited with code {code}"),
            (None, None) => f.write_str("ended"),
        }?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, ": {hint}"))
    }
}
