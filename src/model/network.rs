//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range: every address that shares the first `length` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Parses `10.0.0.0/8`, `fd00::/8`, or a single address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example =
            || "expected a network such as \"10.0.0.0/8\", \"fd00::/8\" or one address".to_owned();
        let (address, length) = match text.trim().split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| example())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|n| *n <= longest).ok_or_else(example)?,
            None => longest,
        };
        let network = Self { address, length };
        let masked = network.masked(address);
        if masked == address {
            Ok(network)
        } else {
            Err(format!("bits are set beyond the first {length}: write \"{masked}/{length}\""))
        }
    }

    /// Whether an address lies within. An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) counts
    /// as the IPv4 address it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.address
    }

    /// Its first and its last address.
    #[must_use]
    pub fn bounds(&self) -> (IpAddr, IpAddr) {
        let length = u32::from(self.length);
        let last = match self.address {
            IpAddr::V4(v4) => {
                let rest = u32::MAX.checked_shr(length).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | rest))
            }
            IpAddr::V6(v6) => {
                let rest = u128::MAX.checked_shr(length).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() | rest))
            }
        };
        (self.address, last)
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        let length = u32::from(self.length);
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let ten = Network::parse("10.0.0.0/8").expect("a network");
        let inside: IpAddr = "10.200.3.4".parse().expect("an address");
        let dressed: IpAddr = "::ffff:10.1.1.1".parse().expect("an address");
        let outside: IpAddr = "11.0.0.1".parse().expect("an address");
        assert!(ten.contains(inside) && ten.contains(dressed) && !ten.contains(outside));
        let all = Network::parse("0.0.0.0/0").expect("a network");
        assert!(all.contains(outside) && !all.contains(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        let one = Network::parse("::1").expect("a network");
        assert!(one.contains(IpAddr::V6(Ipv6Addr::LOCALHOST)) && !one.contains(inside));
        for (text, words) in [
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("10.0.0.0/33", "expected a network"),
            ("private", "expected a network"),
        ] {
            let said = Network::parse(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
