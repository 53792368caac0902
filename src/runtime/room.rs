//! What an instance uses, and what is left on this machine for another.
//!
//! Reads what the kernel says. What it does not say is unknown, never guessed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::procfs;

/// What is used, by one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of memory that cannot be had back without ending it.
    pub memory: u64,
    /// Bytes on disk besides its image and its volumes.
    pub disk: u64,
    /// Open files.
    pub files: u64,
}

/// What an instance takes of the machine at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Time of processors since it began.
    pub cpu: Duration,
    /// Bytes of memory that cannot be had back without ending it.
    pub memory: u64,
}

/// What is left for more instances; `None` where that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes of memory that can be had without swapping.
    pub memory: Option<u64>,
    /// Of so many.
    pub memory_total: Option<u64>,
    /// Bytes on the disk where instances write.
    pub disk: Option<u64>,
    /// Files that may still be opened.
    pub files: Option<u64>,
}

impl Room {
    /// What is left here, with the disk of this directory.
    #[must_use]
    pub fn here(dir: &Path) -> Self {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let group = Group::own();
        let least =
            |machine: Option<u64>, group: Option<u64>| [machine, group].into_iter().flatten().min();
        Self {
            memory: least(field(&info, "MemAvailable:"), group.as_ref().map(Group::left)),
            memory_total: least(field(&info, "MemTotal:"), group.as_ref().map(|group| group.most)),
            disk: rustix::fs::statvfs(dir).ok().map(|found| found.f_bavail * found.f_frsize),
            files: files(&fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default()),
        }
    }
}

/// A control group's memory.
struct Group {
    most: u64,
    used: u64,
}

impl Group {
    /// That of this process, where it is limited: as a service of systemd, or in a container.
    fn own() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let dir = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        let read = |name: &str| -> Option<u64> {
            fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
        };
        let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
        let cached = cached.and_then(|text| text.trim().parse().ok()).unwrap_or(0_u64);
        Some(Self {
            most: read("memory.max")?,
            used: read("memory.current")?.saturating_sub(cached),
        })
    }

    const fn left(&self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

/// proc_sys_fs(5): allocated, unused, most.
fn files(text: &str) -> Option<u64> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (used, _, most) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(most.saturating_sub(used))
}

/// Bytes of a line that gives kilobytes.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kilobytes * 1024)
}

/// What a process group uses: all of its processes together.
#[must_use]
pub fn of_group(group: i32) -> Usage {
    let mut usage = Usage::default();
    for pid in procfs::pids().filter(|pid| procfs::group_of(*pid) == Some(group)) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // What it shares with others it would share with one more of its kind.
        let own = field(&status, "RssAnon:").or_else(|| field(&status, "VmRSS:"));
        usage.memory += own.unwrap_or(0);
        usage.files += open_files(pid);
    }
    usage
}

/// What a process group takes: all of its processes together, and those of theirs that have ended.
#[must_use]
pub fn spent_by_group(group: i32) -> Spent {
    let ticks: u64 = procfs::pids().filter_map(|pid| procfs::ticks_of(pid, group)).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let cpu = Duration::from_millis(ticks.saturating_mul(1_000) / per_second);
    Spent { cpu, memory: of_group(group).memory }
}

/// How many files a process has open; 0 where we may not look.
#[must_use]
pub fn open_files(pid: i32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_is_left() {
        let here = Room::here(Path::new("/"));
        let (left, total) = (here.memory.expect("Linux"), here.memory_total.expect("Linux"));
        assert!(left > 0 && left <= total, "{here:?}");
        assert!(here.disk.is_some() && here.files.is_some_and(|files| files > 0), "{here:?}");
        assert_eq!(Room::here(Path::new("/nowhere/at/all")).disk, None);
        assert_eq!(files("1000\t0\t9000\n"), Some(8_000));
        assert_eq!(files(""), None);
    }

    #[test]
    fn a_process_group_uses_something() {
        let own = procfs::group_of(i32::try_from(std::process::id()).expect("a pid"));
        let usage = of_group(own.expect("a group"));
        assert!(usage.memory > 100_000 && usage.files > 2, "{usage:?}");
        assert_eq!(of_group(-1), Usage::default());
    }

    #[test]
    fn who_computes_spends_time() {
        let group = procfs::group_of(i32::try_from(std::process::id()).expect("a pid"));
        let group = group.expect("a group");
        let before = spent_by_group(group);
        let mut sum = 0_u64;
        let spent = loop {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
            let now = spent_by_group(group);
            if now.cpu >= before.cpu + Duration::from_millis(50) {
                break now;
            }
        };
        assert!(spent.memory > 100_000, "{spent:?}");
        assert_eq!(spent_by_group(-1), Spent::default());
    }
}
