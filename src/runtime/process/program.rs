//! Whether a command names a program that can be run here, found out before anything is started.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Finds the program of a command as execvp(3) would. The error is one sentence with the cure.
pub fn locate(command: &[String], path: Option<&str>) -> Result<PathBuf, String> {
    let Some(program) = command.first().filter(|program| !program.is_empty()) else {
        return Err("the command is empty: give at least the program to run".to_owned());
    };
    if program.contains('/') {
        let found = PathBuf::from(program);
        return match runnable(&found) {
            Runnable::Yes => Ok(found),
            Runnable::No => {
                Err(format!("{program:?} may not be executed: chmod +x it, or name the right file"))
            }
            Runnable::Missing => {
                Err(format!("there is no program {program:?}{}", from_here(&found)))
            }
        };
    }
    let path = path.map_or_else(|| env::var_os("PATH").unwrap_or_default(), Into::into);
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| runnable(candidate) == Runnable::Yes)
        .ok_or_else(|| {
            format!("there is no program {program:?} on PATH: give its full path, or install it")
        })
}

#[derive(PartialEq)]
enum Runnable {
    Yes,
    No,
    Missing,
}

fn runnable(path: &Path) -> Runnable {
    match fs::metadata(path) {
        Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => Runnable::Yes,
        Ok(_) => Runnable::No,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Runnable::No,
        Err(_) => Runnable::Missing,
    }
}

/// A relative path means something only from somewhere.
fn from_here(program: &Path) -> String {
    match env::current_dir() {
        Ok(here) if program.is_relative() => {
            format!(" below {}: give its full path", here.display())
        }
        _ => ": check the path".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(program: &str) -> Vec<String> {
        vec![program.to_owned()]
    }

    #[test]
    fn tells_what_is_wrong_with_a_program() {
        assert_eq!(locate(&words("/bin/sh"), None), Ok(PathBuf::from("/bin/sh")));
        assert!(locate(&words("sh"), Some("/nowhere:/bin")).is_ok());
        assert!(locate(&[], None).unwrap_err().contains("empty"));
        assert!(locate(&words("no-such-program"), None).unwrap_err().contains("on PATH"));
        assert!(locate(&words("/etc/passwd"), None).unwrap_err().contains("chmod +x"));
        assert!(locate(&words("./no-such"), None).unwrap_err().contains("below /"));
        assert!(locate(&words("/bin"), None).unwrap_err().contains("may not be executed"));
    }
}
