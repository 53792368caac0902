//! Secrets on their way to an instance: read where they are, written into a directory of its own.
//!
//! Nothing of what they say is in an error, a label, a variable or a record.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::RuntimeError;
use crate::model::secret::{SecretSource, Secrets};

/// A password, a token or a key is shorter; what is longer is a mistake. Swarm takes 500 KB.
const LONGEST: u64 = 512 * 1024;

/// Looks whether each can be read.
pub fn check(secrets: &Secrets) -> Result<(), RuntimeError> {
    secrets.iter().try_for_each(|(name, source)| read(name, source).map(drop))
}

/// Writes each into a file of its own in `dir`, in place of what is there. Others on this machine are
/// kept out by who may enter the directory above.
///
/// `mode` is that of the files: whoever runs in a container has another number than we have.
pub fn write(dir: &Path, secrets: &Secrets, mode: u32) -> Result<(), RuntimeError> {
    let unwritable = |error: io::Error| {
        RuntimeError::Failed(format!("{} cannot be written: {error}", dir.display()))
    };
    let executable = mode | (mode & 0o444) >> 2 | 0o300;
    fs::DirBuilder::new().recursive(true).mode(executable).create(dir).map_err(unwritable)?;
    for (name, source) in secrets {
        let bytes = read(name, source)?;
        let path = dir.join(name);
        // One of a launch before may not be writable.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(error)),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(&bytes)).map_err(unwritable)?;
    }
    Ok(())
}

fn read(name: &str, source: &SecretSource) -> Result<Vec<u8>, RuntimeError> {
    let missing = |why: String| {
        RuntimeError::NotFound(format!("the secret {name} cannot be had from {source}: {why}"))
    };
    let bytes = match source {
        SecretSource::File(path) => {
            let mut bytes = Vec::new();
            let file = fs::File::open(path);
            let read = file.and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
            read.map_err(|error| missing(error.to_string()))?;
            bytes
        }
        SecretSource::Variable(variable) => match std::env::var_os(variable) {
            Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
            None => return Err(missing("the daemon was started without it".to_owned())),
        },
    };
    match bytes.len() as u64 {
        0 => Err(missing("it is empty".to_owned())),
        1..=LONGEST => Ok(bytes),
        _ => Err(missing(format!("it is longer than {} KiB", LONGEST / 1024))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_written_and_bad_ones_named() {
        let home = tempfile::tempdir().unwrap();
        let (from, dir) = (home.path().join("from"), home.path().join("to/web-1"));
        fs::write(&from, "swordfish").unwrap();
        let of = |source: SecretSource| Secrets::from([("PASSWORD".to_owned(), source)]);
        let file = of(SecretSource::File(from.clone()));
        for _ in 0..2 {
            write(&dir, &file, 0o400).unwrap();
            assert_eq!(fs::read_to_string(dir.join("PASSWORD")).unwrap(), "swordfish");
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.join("PASSWORD")), mode(&dir)), (0o400, 0o700));

        fs::write(&from, "").unwrap();
        let says = |secrets: &Secrets| check(secrets).unwrap_err().to_string();
        assert!(
            says(&file).contains("PASSWORD cannot be had from") && says(&file).ends_with("empty")
        );
        fs::write(&from, vec![b'x'; 600 * 1024]).unwrap();
        assert!(says(&file).ends_with("it is longer than 512 KiB"));
        fs::remove_file(&from).unwrap();
        assert!(says(&file).contains("No such file"));
        let variable = of(SecretSource::Variable("NO_SUCH_VARIABLE_HERE".to_owned()));
        assert!(says(&variable).contains("the variable NO_SUCH_VARIABLE_HERE"));
    }
}
