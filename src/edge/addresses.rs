//! Sets of networks, thousands of them, asked in a few steps.

use std::net::IpAddr;

use crate::model::network::Network;

/// A set of networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressSet {
    /// First and last of each range of IPv4, in order, without overlap.
    four: Vec<(u128, u128)>,
    /// The same of IPv6.
    six: Vec<(u128, u128)>,
}

/// An address as a number; an IPv4 address in IPv6 clothes is the IPv4 address that it is.
fn number(address: IpAddr) -> (bool, u128) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (true, v4.to_bits().into()),
        IpAddr::V6(v6) => (false, v6.to_bits()),
    }
}

/// Ranges in order, those that overlap or adjoin made one.
fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

impl AddressSet {
    /// The set of these networks.
    #[must_use]
    pub fn new(networks: &[Network]) -> Self {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for network in networks {
            let (first, last) = network.bounds();
            let ((is_four, first), (_, last)) = (number(first), number(last));
            if is_four { four.push((first, last)) } else { six.push((first, last)) }
        }
        Self { four: merged(four), six: merged(six) }
    }

    /// Whether an address lies in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (is_four, number) = number(address);
        let ranges = if is_four { &self.four } else { &self.six };
        let after = ranges.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).is_some_and(|at| ranges[at].1 >= number)
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.four.is_empty() && self.six.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(networks: &[&str]) -> AddressSet {
        let parse = |text: &&str| Network::parse(text).expect("a network");
        AddressSet::new(&networks.iter().map(parse).collect::<Vec<_>>())
    }

    #[test]
    fn a_set_has_what_its_networks_have() {
        let networks =
            ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32", "::1"];
        let set = set(&networks);
        assert_eq!(
            (set.four.len(), set.six.len()),
            (2, 2),
            "overlapping and adjoining ranges are one"
        );
        for (address, is_in) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.200", true),
            ("192.0.3.0", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::2", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(set.contains(address.parse().expect("an address")), is_in, "{address}");
        }
        assert!(AddressSet::default().is_empty());
        assert!(!AddressSet::default().contains(IpAddr::from([0, 0, 0, 0])));
    }

    #[test]
    fn everything_is_a_set_too() {
        let all = set(&["0.0.0.0/0", "::/0"]);
        assert!(all.contains(IpAddr::from([255, 255, 255, 255])));
        assert!(all.contains("ffff:ffff::1".parse().expect("an address")));
        let four = set(&["0.0.0.0/0"]);
        assert!(!four.contains("2001:db8::1".parse().expect("an address")));
        assert!(!set(&["::/0"]).contains(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn thousands_of_networks_agree_with_a_search_one_by_one() {
        let networks: Vec<Network> = (0..5_000_u32)
            .map(|n| {
                let [_, a, b, c] = (n.wrapping_mul(2_654_435_761)).to_be_bytes();
                let length = 16 + n % 17;
                let bits = u32::from_be_bytes([100 + (n % 50) as u8, a, b, c]);
                let masked = bits & u32::MAX.checked_shl(32 - length).unwrap_or(0);
                let address = std::net::Ipv4Addr::from_bits(masked);
                Network::parse(&format!("{address}/{length}")).expect("a network")
            })
            .collect();
        let set = AddressSet::new(&networks);
        for n in 0..20_000_u32 {
            let address =
                IpAddr::from((0x6400_0000 + n.wrapping_mul(40_503) % 0x3400_0000).to_be_bytes());
            let slow = networks.iter().any(|network| network.contains(address));
            assert_eq!(set.contains(address), slow, "{address}");
        }
    }
}
