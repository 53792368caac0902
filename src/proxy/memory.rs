//! How much memory there is, and how much of it we use: what the kernel says.

use std::fs;

/// Bytes that this process may use: the least of the machine's and its control group's. `None` when
/// the kernel does not say.
pub fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok();
    let machine = text.and_then(|text| field(&text, "MemTotal:"));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    [machine, group].into_iter().flatten().min()
}

/// Bytes that are resident.
pub fn used() -> Option<u64> {
    // In kilobytes: `statm` counts pages, and asking for their size ends a process under valgrind.
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Has the allocator return to the kernel what has been free for a second. It looks for that only when it
/// gives up a page of its own, as every block of this size is; with nothing to do nobody gives one up, and
/// what a burst left behind would stay.
pub fn give_back() {
    const PAGE: usize = 1 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(PAGE)));
}

/// Bytes of a line that gives kilobytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_much_there_is() {
        assert_eq!(field("MemFree: 1 kB\nMemTotal:  2048 kB\n", "MemTotal:"), Some(2 << 20));
        assert_eq!(field("nothing", "MemTotal:"), None);
        let (available, used) = (available().expect("Linux"), used().expect("Linux"));
        assert!(used > 100_000 && used < available, "{used} of {available}");
    }
}
