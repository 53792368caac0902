//! How many clients there are, where affinity keeps each on its side.
//!
//! Requests of one client are alike: a heavy user, a far one, one with a large account. Ten thousand
//! requests of ten clients say as much of a revision's speed as ten requests do. So where clients are
//! assigned, a canary is slower only if it is so by more than its clients may differ from stable's.
//!
//! Requests are counted by a byte of their client's hash, and the counts say as how many clients *all
//! alike* those who came count (Kish 1965): a client with half of all requests makes it less than four.

/// Groups of clients that are told apart. More clients than that count as so many, which asks for a
/// little more than need be: 13 % beside 256 groups on either side.
pub const GROUPS: usize = 256;
/// The standard deviation of the logarithm of latency between clients that is reckoned with: two of three
/// clients are within a factor of 1.65 of the middle.
const SPREAD: f64 = 0.5;
/// Standard deviations by which the clients of two sides may differ by chance: one in 700.
const SURE: f64 = 3.0;

/// As how many clients, all with the same number of requests, these numbers count.
#[must_use]
pub fn alike(requests: impl Iterator<Item = u64>) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for requests in requests {
        let requests = requests as f64;
        sum += requests;
        squares += requests * requests;
    }
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// By what factor the clients of one side may be slower than those of the other for no reason but who
/// they are; infinite where there is nobody.
#[must_use]
pub fn by_chance([stable, canary]: [f64; 2]) -> f64 {
    (SURE * SPREAD * (1.0 / stable + 1.0 / canary).sqrt()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heavy_client_is_not_many() {
        assert!((alike([5; 40].into_iter()) - 40.0).abs() < 1e-9);
        assert!(alike([1_000, 10, 10, 10].into_iter()) < 1.1);
        assert!(alike([0; 256].into_iter()).abs() < 1e-9);
    }

    #[test]
    fn few_clients_may_differ_by_much_and_many_hardly() {
        assert!(by_chance([0.0, 0.0]).is_infinite());
        assert!(by_chance([7.5, 2.5]) > 2.5);
        assert!((1.2..1.3).contains(&by_chance([950.0_f64.min(256.0), 60.0])));
        assert!(by_chance([256.0, 256.0]) < 1.15);
    }
}
