//! Weights and splits, in basis points: 10,000 is the whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One side's share of a service's traffic, in basis points (hundredths of a percent), 0 to 10,000.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(u16);

/// Why a number or text is not a weight.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWeight {
    /// More than the whole, or less than nothing.
    #[error("{0} is not between 0% and 100%")]
    OutOfRange(String),
    /// Finer than a basis point, which is the finest share that can be kept.
    #[error("{0} is finer than 0.01%, the smallest step")]
    TooFine(String),
    /// Not a number.
    #[error("{0:?} is not a percentage such as 5% or 12.5%")]
    NotANumber(String),
}

impl Weight {
    /// No traffic.
    pub const ZERO: Self = Self(0);
    /// All traffic.
    pub const FULL: Self = Self(Self::WHOLE);
    /// Basis points in the whole.
    pub const WHOLE: u16 = 10_000;

    /// A weight of so many basis points.
    pub fn from_basis_points(basis_points: u16) -> Result<Self, InvalidWeight> {
        if basis_points <= Self::WHOLE {
            Ok(Self(basis_points))
        } else {
            Err(InvalidWeight::OutOfRange(format!("{basis_points} basis points")))
        }
    }

    /// A weight from a percentage such as `12.5`; at most two decimals.
    pub fn from_percent(percent: f64) -> Result<Self, InvalidWeight> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(InvalidWeight::OutOfRange(format!("{percent}%")));
        }
        let basis_points = (percent * 100.0).round();
        if (basis_points - percent * 100.0).abs() > 1e-6 {
            return Err(InvalidWeight::TooFine(format!("{percent}%")));
        }
        // In range by the check above.
        Ok(Self(basis_points as u16))
    }

    /// Basis points, 0 to 10,000.
    #[must_use]
    pub fn basis_points(self) -> u16 {
        self.0
    }

    /// Percent, 0 to 100.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// A fraction, 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// What is left for the other side.
    #[must_use]
    pub fn complement(self) -> Self {
        Self(Self::WHOLE - self.0)
    }
}

impl TryFrom<u16> for Weight {
    type Error = InvalidWeight;
    fn try_from(basis_points: u16) -> Result<Self, InvalidWeight> {
        Self::from_basis_points(basis_points)
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

/// Parses `5%`, `12.5%`, `12.5`.
impl FromStr for Weight {
    type Err = InvalidWeight;
    fn from_str(text: &str) -> Result<Self, InvalidWeight> {
        let number = text.trim().trim_end_matches('%').trim_end();
        let percent: f64 =
            number.parse().map_err(|_| InvalidWeight::NotANumber(text.to_owned()))?;
        if !percent.is_finite() {
            return Err(InvalidWeight::NotANumber(text.to_owned()));
        }
        Self::from_percent(percent)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent())
    }
}

/// Which side of a split something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The revision that holds the traffic and to which we return.
    Stable,
    /// The new revision under judgement.
    Canary,
}

impl Side {
    /// Both sides, stable first.
    pub const BOTH: [Self; 2] = [Self::Stable, Self::Canary];

    /// `stable` or `canary`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Stable => Self::Canary,
            Self::Canary => Self::Stable,
        }
    }

    /// 0 for stable, 1 for canary: the order in which arrays of sides are laid out.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Stable => 0,
            Self::Canary => 1,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_parse_to_basis_points() {
        let parse = |text: &str| text.parse::<Weight>().map(Weight::basis_points);
        assert_eq!(parse("5%"), Ok(500));
        assert_eq!(parse("12.5 %"), Ok(1250));
        assert_eq!(parse("0.01%"), Ok(1));
        assert_eq!(parse("100"), Ok(10_000));
        assert!(matches!(parse("101%"), Err(InvalidWeight::OutOfRange(_))));
        assert!(matches!(parse("-1%"), Err(InvalidWeight::OutOfRange(_))));
        assert!(matches!(parse("0.001%"), Err(InvalidWeight::TooFine(_))));
        assert!(matches!(parse("five"), Err(InvalidWeight::NotANumber(_))));
        assert!(matches!(parse("NaN"), Err(InvalidWeight::NotANumber(_))));
    }

    #[test]
    fn a_weight_and_its_complement_are_the_whole() {
        for basis_points in 0..=10_000 {
            let weight = Weight::from_basis_points(basis_points).unwrap_or_default();
            assert_eq!(weight.basis_points() + weight.complement().basis_points(), 10_000);
        }
    }
}
