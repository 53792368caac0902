//! Numbers as people read them: durations, percents, counts, rates, times of day.
//!
//! Pure; for eyes only. What programs read is JSON, where numbers stay whole.

use jiff::Timestamp;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// `0.4ms`, `61ms`, `4.1s`, `41s`, `2m10s`, `1h05m`, `3d04h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "0s".to_owned();
    }
    // Rounded first, so that 59.7 s is `1m00s` and not `60s`.
    let whole = seconds.round();
    match seconds {
        0.0 => "0s".to_owned(),
        s if s < 0.009_95 => format!("{:.1}ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0}ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1}s"),
        _ if whole < MINUTE => format!("{whole:.0}s"),
        _ if whole < HOUR => format!("{:.0}m{:02.0}s", (whole / MINUTE).floor(), whole % MINUTE),
        _ if whole < DAY => {
            format!("{:.0}h{:02.0}m", (whole / HOUR).floor(), (whole % HOUR / MINUTE).floor())
        }
        _ => format!("{:.0}d{:02.0}h", (whole / DAY).floor(), (whole % DAY / HOUR).floor()),
    }
}

/// `0%`, `0.03%`, `4.71%`, `25%`, `74.8%`. Something that is not nothing is never shown as `0%`.
#[must_use]
pub fn percent(percent: f64) -> String {
    if percent > 0.0 && percent < 0.005 {
        return "<0.01%".to_owned();
    }
    let text = if percent.abs() < 10.0 { format!("{percent:.2}") } else { format!("{percent:.1}") };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}%")
}

/// Bytes: `512 B`, `18 kB`, `4.2 MB`, `1.3 GB`; in powers of 1,000, as disks are sold.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1e3;
    let mut unit = 0;
    while amount >= 999.5 && unit + 1 < units.len() {
        amount /= 1e3;
        unit += 1;
    }
    let digits = usize::from(amount < 9.95);
    format!("{amount:.digits$} {}", units[unit])
}

/// `18210`, `183k`, `12.4M`.
#[must_use]
pub fn count(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..10_000_000 => format!("{}k", count / 1_000),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

/// Per second: `0`, `0.4`, `7.2`, `412`.
#[must_use]
pub fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// `1 request`, `2 requests`.
#[must_use]
pub fn plural(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {one}s", count(n)) }
}

/// Seconds from one RFC 3339 time to another; `None` where either cannot be read.
#[must_use]
pub fn seconds_between(from: &str, to: &str) -> Option<f64> {
    seconds_until(from, to.parse().ok()?)
}

/// Seconds from an RFC 3339 time to a moment.
#[must_use]
pub fn seconds_until(from: &str, to: Timestamp) -> Option<f64> {
    let from: Timestamp = from.parse().ok()?;
    Some(to.duration_since(from).as_secs_f64())
}

/// `10:00:05` of an RFC 3339 time, which is in UTC as the daemon writes it.
#[must_use]
pub fn clock(at: &str) -> &str {
    at.get(11..19).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0.0, "0s"),
            (0.000_42, "0.4ms"),
            (0.061, "61ms"),
            (0.999_9, "1.0s"),
            (4.12, "4.1s"),
            (9.96, "10s"),
            (41.2, "41s"),
            (59.7, "1m00s"),
            (130.4, "2m10s"),
            (3_599.9, "1h00m"),
            (3_900.0, "1h05m"),
            (273_600.0, "3d04h"),
            (-1.0, "0s"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn shares_and_counts_are_short() {
        let percents: Vec<String> =
            [0.0, 0.001, 0.03, 4.712, 5.0, 12.5, 74.84, 100.0].map(percent).into();
        assert_eq!(percents, ["0%", "<0.01%", "0.03%", "4.71%", "5%", "12.5%", "74.8%", "100%"]);
        let counts: Vec<String> = [0, 18_210, 183_000, 12_400_000].map(count).into();
        assert_eq!(counts, ["0", "18210", "183k", "12.4M"]);
        let rates: Vec<String> = [0.0, 0.44, 7.2, 412.3].map(rate).into();
        assert_eq!(rates, ["0", "0.4", "7.2", "412"]);
        assert_eq!(plural(1, "request"), "1 request");
    }

    #[test]
    fn times_are_read() {
        let seconds = seconds_between("2026-11-21T10:00:00Z", "2026-11-21T10:01:41.5Z");
        assert_eq!(seconds, Some(101.5));
        assert_eq!(seconds_between("yesterday", "2026-11-21T10:01:41.5Z"), None);
        assert_eq!(clock("2026-11-21T10:00:05.000Z"), "10:00:05");
        assert_eq!(clock("?"), "?");
    }
}
