//! Which threads step back behind requests, and that what they start does not.
//!
//! Workers serve at the rank that the process was given. A thread that decides, writes or answers the
//! operator steps back (`nice(2)`, which on Linux is of one thread), so that where it shares a core with
//! a worker the request goes first. A process inherits the rank of the thread that starts it, and may
//! not take it back without a privilege; so commands are started by a thread in front.

use std::cell::RefCell;
use std::io;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// How far a thread steps back. The kernel lets a thread of the same rank finish its turn, and a change
/// of weights has some twenty of them, 2 ms in all. With everything on one core and 20 changes a second,
/// the slowest request in a hundred waited 4 times as long as without any, 2.7 times with the store's
/// thread alone at 5, and 1.5 times with all at this rank; at 19 that was 1.6. Where a machine has ten
/// times too much to do, it is still a hundredth of a core.
const NICE: i32 = 10;

thread_local! {
    /// Where a thread that has stepped back starts commands.
    static FRONT: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// What threads do first that are to step back behind this one, and to start their commands on this
/// one's runtime.
pub fn behind(front: Handle) -> impl Fn() + Clone + Send + Sync + 'static {
    // Not one more step than this, for a thread begins at the rank of whoever began it.
    let rank = getpriority_process(Some(gettid())).map(|ours| ours + NICE);
    move || {
        // Refused, everything works as well.
        let _ = rank.and_then(|rank| setpriority_process(Some(gettid()), rank));
        FRONT.set(Some(front.clone()));
    }
}

/// Starts a command at the rank that the daemon was given.
///
/// Cancel safety: dropped midway, the command may be started; it is ended where it is to be on drop.
pub async fn spawn(mut command: Command) -> io::Result<Child> {
    match FRONT.with_borrow(Clone::clone) {
        None => command.spawn(),
        Some(front) => {
            front.spawn(async move { command.spawn() }).await.map_err(io::Error::other)?
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn rank() -> i32 {
        getpriority_process(Some(gettid())).expect("a rank")
    }

    /// The rank of a command, by its own words.
    async fn rank_of_command() -> i32 {
        let mut command = Command::new("nice");
        command.stdout(Stdio::piped());
        let ended = spawn(command).await.expect("a command").wait_with_output().await;
        let said = String::from_utf8(ended.expect("an end").stdout).expect("text");
        said.trim().parse().expect("a number")
    }

    #[test]
    fn a_thread_steps_back_and_neither_others_nor_its_commands_do() {
        let front = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let front = front.expect("a runtime");
        let ours = rank();
        let other = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(behind(front.handle().clone()))
            .build()
            .expect("a runtime");
        let there =
            async { (rank(), tokio::task::spawn_blocking(rank).await, rank_of_command().await) };
        let (itself, its_helper, its_command) =
            front.block_on(other.spawn(there)).expect("no panic");
        assert_eq!(itself, (ours + NICE).min(19));
        assert_eq!(its_helper.expect("no panic"), itself);
        assert_eq!(its_command, ours);
        assert_eq!(rank(), ours);
    }

    #[tokio::test]
    async fn a_thread_in_front_starts_commands_itself() {
        assert_eq!(rank_of_command().await, rank());
        let refused = spawn(Command::new("/no/such/program")).await;
        assert_eq!(refused.expect_err("nothing to start").kind(), io::ErrorKind::NotFound);
    }
}
