//! The inverse of the normal distribution function, and the few other special functions that the
//! evidence needs. Pure arithmetic; knows nothing of requests.

/// The standard normal quantile: the `z` below which a fraction `p` lies. Algorithm AS 241 (PPND16) of
/// M. J. Wichura, Applied Statistics 37 (1988), good to about 1 part in 10^16. Infinite at 0 and 1.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        // 0.180625 = 0.425², as in the paper.
        let r = 0.180_625 - q * q;
        return q * ratio(&CENTRE_NUMERATOR, &CENTRE_DENOMINATOR, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    if tail <= 0.0 {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let r = (-tail.ln()).sqrt();
    // Shifts 1.6 and 5, and the border between them, are the paper's.
    let z = if r <= 5.0 {
        ratio(&MIDDLE_NUMERATOR, &MIDDLE_DENOMINATOR, r - 1.6)
    } else {
        ratio(&FAR_NUMERATOR, &FAR_DENOMINATOR, r - 5.0)
    };
    if q < 0.0 { -z } else { z }
}

/// The natural logarithm of the gamma function for `x > 0`: Stirling's series after moving the
/// argument above 10, where four terms leave an error below 1e-12.
#[must_use]
pub fn ln_gamma(x: f64) -> f64 {
    let mut shifted = x;
    let mut product = 1.0;
    while shifted < 10.0 {
        product *= shifted;
        shifted += 1.0;
    }
    let inverse = 1.0 / shifted;
    let square = inverse * inverse;
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    let half_ln_two_pi = 0.918_938_533_204_672_7;
    (shifted - 0.5) * shifted.ln() - shifted + half_ln_two_pi + series - product.ln()
}

/// The log-odds of a probability.
#[must_use]
pub fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

/// The probability of log-odds.
#[must_use]
pub fn expit(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn ratio(numerator: &[f64; 8], denominator: &[f64; 8], r: f64) -> f64 {
    let horner = |terms: &[f64; 8]| terms.iter().rev().fold(0.0, |sum, term| sum * r + term);
    horner(numerator) / horner(denominator)
}

// Coefficients of AS 241, lowest power first.
const CENTRE_NUMERATOR: [f64; 8] = [
    3.387_132_872_796_366_5,
    133.141_667_891_784_38,
    1_971.590_950_306_551_4,
    13_731.693_765_509_46,
    45_921.953_931_549_87,
    67_265.770_927_008_7,
    33_430.575_583_588_13,
    2_509.080_928_730_122_7,
];
const CENTRE_DENOMINATOR: [f64; 8] = [
    1.0,
    42.313_330_701_600_91,
    687.187_007_492_057_9,
    5_394.196_021_424_751,
    21_213.794_301_586_596,
    39_307.895_800_092_71,
    28_729.085_735_721_943,
    5_226.495_278_852_854,
];
const MIDDLE_NUMERATOR: [f64; 8] = [
    1.423_437_110_749_683_5,
    4.630_337_846_156_546,
    5.769_497_221_460_691,
    3.647_848_324_763_204_5,
    1.270_458_252_452_368_4,
    0.241_780_725_177_450_6,
    0.022_723_844_989_269_184,
    7.745_450_142_783_414e-4,
];
const MIDDLE_DENOMINATOR: [f64; 8] = [
    1.0,
    2.053_191_626_637_759,
    1.676_384_830_183_803_8,
    0.689_767_334_985_1,
    0.148_103_976_427_480_08,
    0.015_198_666_563_616_457,
    5.475_938_084_995_345e-4,
    1.050_750_071_644_416_9e-9,
];
const FAR_NUMERATOR: [f64; 8] = [
    6.657_904_643_501_103,
    5.463_784_911_164_114,
    1.784_826_539_917_291_3,
    0.296_560_571_828_504_87,
    0.026_532_189_526_576_124,
    0.001_242_660_947_388_078_4,
    2.711_555_568_743_487_6e-5,
    2.010_334_399_292_288_1e-7,
];
const FAR_DENOMINATOR: [f64; 8] = [
    1.0,
    0.599_832_206_555_888,
    0.136_929_880_922_735_8,
    0.014_875_361_290_850_615,
    7.868_691_311_456_133e-4,
    1.846_318_317_510_054_8e-5,
    1.421_511_758_316_446e-7,
    2.044_263_103_389_939_8e-15,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Known to 15 digits from tables (and from the test values in the paper: 0.25, 0.001, 1e-20).
    #[test]
    fn quantiles_agree_with_known_values() {
        for (p, z) in [
            (0.5, 0.0),
            (0.25, -0.674_489_750_196_081_7),
            (0.001, -3.090_232_306_167_813_5),
            (1e-20, -9.262_340_089_798_407),
            (0.975, 1.959_963_984_540_054),
            (0.9, 1.281_551_565_544_600_4),
            (0.99, 2.326_347_874_040_841),
        ] {
            assert!((quantile(p) - z).abs() < 1e-12, "{p}: {} against {z}", quantile(p));
        }
        assert_eq!(quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(quantile(1.0), f64::INFINITY);
    }

    #[test]
    fn quantiles_and_gamma_agree_with_puruspe() {
        let tails = (1..15).map(|digits| 10_f64.powi(-digits));
        let middle = (1..2_000).map(|part| f64::from(part) / 2_000.0);
        for p in tails.chain(middle) {
            let (ours, theirs) =
                (quantile(p), -std::f64::consts::SQRT_2 * puruspe::inverfc(2.0 * p));
            assert!((ours - theirs).abs() < 1e-9 * (1.0 + theirs.abs()), "{p}: {ours}, {theirs}");
        }
        for x in (1..4_000).map(|part| f64::from(part) * 0.37) {
            let (ours, theirs) = (ln_gamma(x), puruspe::ln_gamma(x));
            assert!((ours - theirs).abs() < 1e-10 * (1.0 + theirs.abs()), "{x}: {ours}, {theirs}");
        }
    }

    #[test]
    fn gamma_is_a_factorial() {
        let mut factorial = 1.0_f64;
        for n in 1..30 {
            assert!((ln_gamma(f64::from(n)) - factorial.ln()).abs() < 1e-10, "{n}");
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-10);
    }

    #[test]
    fn odds_and_probabilities_are_inverse() {
        for p in [1e-9, 0.01, 0.5, 0.99] {
            assert!((expit(logit(p)) - p).abs() < 1e-12);
        }
    }
}
