//! Numbers as people read them: `4.7 %`, `120 ms`, `2,043`, `1 in 4,100`.

use super::ordinal::Shape;

/// A fraction as a percentage with two significant digits.
#[must_use]
pub fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    format!("{} %", significant(percent))
}

/// Seconds in the unit that fits.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s => format!("{s:.0} s"),
    }
}

/// A time to wait, in the unit that a person would say: `40 s`, `2 min`, `3 h`.
#[must_use]
pub fn wait(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "a second".to_owned(),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 90.0 * 60.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// An interval: `1.9 to 6.1 %`, `92 ms to 1.2 s`.
#[must_use]
pub fn span((low, high): (f64, f64), number: fn(f64) -> String) -> String {
    let (low, high) = (number(low), number(high));
    match (low.rsplit_once(' '), high.rsplit_once(' ')) {
        (Some((bare, unit)), Some((_, same))) if unit == same => format!("{bare} to {high}"),
        _ => format!("{low} to {high}"),
    }
}

/// A count with thousands set apart.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of things: `1 canary request`, `2,043 canary requests`.
#[must_use]
pub fn requests(number: u64) -> String {
    format!("{} canary request{}", count(number), if number == 1 { "" } else { "s" })
}

/// Evidence as a chance: with evidence of 4,100, chance alone goes so far once in 4,100 rollouts.
#[must_use]
pub fn chance(evidence: f64) -> String {
    if evidence >= 1e9 {
        return "less than 1 in a billion".to_owned();
    }
    format!("1 in {}", count(rounded(evidence)))
}

/// What the leading latency expert says.
#[must_use]
pub fn shape(shape: Shape) -> String {
    match shape {
        Shape::Whole => "all requests slower".to_owned(),
        Shape::Tail(quantile) => {
            format!("the slowest {} slower", percent(1.0 - quantile))
        }
    }
}

/// An estimate, rounded to two digits so that it does not pretend to more.
#[must_use]
pub fn rounded(number: f64) -> u64 {
    if number < 100.0 {
        return number.max(0.0).round() as u64;
    }
    let scale = 10_f64.powi(number.log10().floor() as i32 - 1);
    ((number / scale).round() * scale) as u64
}

fn significant(number: f64) -> String {
    let digits = match number.abs() {
        0.0 => 0,
        n if n >= 9.95 => 0,
        n if n >= 0.995 => 1,
        n if n >= 0.0995 => 2,
        n if n >= 0.00995 => 3,
        _ => 4,
    };
    let text = format!("{number:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(0.047), "4.7 %");
        assert_eq!(percent(0.0003), "0.03 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.104), "10 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(time(0.1204), "120 ms");
        assert_eq!(time(0.0023), "2.3 ms");
        assert_eq!(time(0.000_45), "450 µs");
        assert_eq!(time(1.44), "1.4 s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(
            ["a second", "40 s", "2 min", "3 h", "3 days"],
            [0.2, 40.0, 130.0, 1e4, 3e5].map(wait)
        );
        assert_eq!(span((0.019, 0.061), percent), "1.9 to 6.1 %");
        assert_eq!(span((0.092, 1.21), time), "92 ms to 1.2 s");
        assert_eq!(requests(1), "1 canary request");
        assert_eq!(chance(4_123.0), "1 in 4,100");
        assert_eq!(chance(1e12), "less than 1 in a billion");
        assert_eq!(rounded(557.0), 560);
        assert_eq!(shape(Shape::Tail(0.99)), "the slowest 1 % slower");
    }
}
