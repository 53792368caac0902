//! What stands in an archive, and under which names.

use serde::{Deserialize, Serialize};

use crate::model::id::{RevisionId, ServiceName};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The first entry: what it is.
pub const HEAD: &str = "checkpoint.json";
/// The last entry but one: what all parts must be.
pub const MANIFEST: &str = "manifest.json";
/// The last entry: the SHA-256 of the manifest, in hexadecimal.
pub const SUM: &str = "manifest.sha256";

/// The configuration file, as it stood.
pub const CONFIGURATION: &str = "configuration.toml";
/// The revision.
pub const REVISION: &str = "revision.json";
/// The image, as `docker save` writes it.
pub const IMAGE: &str = "image.tar";
/// What the backup command printed.
pub const DUMP: &str = "dump";

/// Bytes of a piece: what is held in memory while a part of unknown length is streamed.
pub const PIECE: usize = 4 * 1024 * 1024;

/// The name of a volume's part.
#[must_use]
pub fn volume(number: usize) -> String {
    format!("volume-{number}.tar")
}

/// What an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The format of the archive.
    pub format: u32,
    /// The version of Switchback that wrote it.
    pub written_by: String,
    /// The service.
    pub service: ServiceName,
    /// The revision.
    pub revision: RevisionId,
    /// What it runs: an image, a command line, or addresses.
    pub runs: String,
    /// When, RFC 3339.
    pub created: String,
    /// Why, in a person's words or ours.
    pub note: Option<String>,
    /// Whether it was made without being asked for; such ones go by themselves.
    pub automatic: bool,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The configuration file.
    Configuration,
    /// The revision.
    Revision,
    /// The image.
    Image {
        /// Its id.
        id: String,
    },
    /// A volume.
    Volume {
        /// The volume's name, or the directory of the host.
        source: String,
        /// Where the app has it.
        at: String,
    },
    /// What the backup command printed.
    Dump {
        /// The command.
        command: Vec<String>,
    },
}

/// What a part must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: About,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What an archive must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What it is.
    pub head: Head,
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

impl Manifest {
    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The id of the image, if there is one.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.parts.iter().find_map(|part| match &part.about {
            About::Image { id } => Some(id.as_str()),
            _ => None,
        })
    }
}

/// An entry's name, as far as there are such entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// [`HEAD`].
    Head,
    /// [`MANIFEST`].
    Manifest,
    /// [`SUM`].
    Sum,
    /// A piece of a part.
    Piece {
        /// The part's name.
        part: String,
        /// Counted from 0.
        number: u32,
    },
}

impl Entry {
    /// What an entry of this name is; none when no archive of ours has such a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            HEAD => return Some(Self::Head),
            MANIFEST => return Some(Self::Manifest),
            SUM => return Some(Self::Sum),
            _ => {}
        }
        let (part, number) = name.split_once('/')?;
        let is_volume = || {
            let number = part.strip_prefix("volume-")?.strip_suffix(".tar")?;
            number.bytes().all(|b| b.is_ascii_digit()).then_some(())
        };
        let is_part = [CONFIGURATION, REVISION, IMAGE, DUMP].contains(&part);
        let is_number = number.len() == 6 && number.bytes().all(|b| b.is_ascii_digit());
        if !is_number || !(is_part || is_volume().is_some()) {
            return None;
        }
        Some(Self::Piece { part: part.to_owned(), number: number.parse().ok()? })
    }

    /// The name of a piece.
    #[must_use]
    pub fn piece(part: &str, number: u32) -> String {
        format!("{part}/{number:06}")
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
