//! Histograms of usage with exponential buckets, in which old samples weigh less and less.
//!
//! Doubles are added in upstream's order and powers computed as upstream's language does, so that
//! amounts agree to the byte.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use wharf_model::time::Time;

/// Every bucket is so much wider than the one before.
const GROWTH: f64 = 1.05;
/// Buckets of less weight count as empty: a thousandth of the least weight of a sample.
const EPSILON: f64 = 0.001 * 0.1;
/// A reference time is moved when a sample is so many half-lives past it.
const EXPONENT_MAX: u32 = 100;
/// The weight of the heaviest bucket of a checkpoint.
const CHECKPOINT_WEIGHT: f64 = 10_000.0;
/// Seconds from the year 1, from which half-lives are counted, to the Unix epoch.
const YEAR_ONE: i128 = 62_135_596_800;
const NANOS: i128 = 1_000_000_000;

/// Where buckets begin.
#[derive(Debug)]
pub(super) struct Buckets {
    first: f64,
    starts: Vec<f64>,
}

/// Buckets of cpu, in cores.
pub(super) static CPU: LazyLock<Buckets> = LazyLock::new(|| Buckets::new(0.01, 1000.0));
/// Buckets of memory, in bytes.
pub(super) static MEMORY: LazyLock<Buckets> = LazyLock::new(|| Buckets::new(1e7, 1e12));

impl Buckets {
    fn new(first: f64, largest: f64) -> Self {
        let count = log(largest * (GROWTH - 1.0) / first + 1.0).ceil() as usize + 1;
        let start = |bucket: usize| match bucket {
            0 => 0.0,
            _ => first * (power(GROWTH, bucket as u64) - 1.0) / (GROWTH - 1.0),
        };
        Self { first, starts: (0..count).map(start).collect() }
    }

    fn find(&self, value: f64) -> usize {
        if value < self.first {
            return 0;
        }
        let bucket = log(value * (GROWTH - 1.0) / self.first + 1.0) as usize;
        bucket.min(self.starts.len() - 1)
    }
}

fn log(value: f64) -> f64 {
    value.ln() / GROWTH.ln()
}

/// A power as upstream's language computes it: by squaring the fraction and keeping the exponent
/// apart, which differs from other libraries in the last bit.
pub(super) fn power(base: f64, exponent: u64) -> f64 {
    if !base.is_finite() {
        return base;
    }
    let (mut square, mut square_exponent) = split(base);
    let (mut result, mut result_exponent) = (1.0_f64, 0_i64);
    let mut left = exponent;
    while left != 0 {
        if left & 1 == 1 {
            result *= square;
            result_exponent += square_exponent;
        }
        square *= square;
        square_exponent <<= 1;
        if square < 0.5 {
            square += square;
            square_exponent -= 1;
        }
        left >>= 1;
    }
    scale_by_two(result, result_exponent)
}

/// A number as a fraction between a half and one, and a power of two.
fn split(value: f64) -> (f64, i64) {
    if value == 0.0 {
        return (value, 0);
    }
    let (mut value, mut exponent) = (value, 0);
    while value.abs() >= 1.0 {
        value /= 2.0;
        exponent += 1;
    }
    while value.abs() < 0.5 {
        value *= 2.0;
        exponent -= 1;
    }
    (value, exponent)
}

/// Multiplies by a power of two.
fn scale_by_two(value: f64, exponent: i64) -> f64 {
    match exponent {
        ..-2000 => 0.0,
        2001.. => value * f64::INFINITY,
        // In two halves, so that neither factor leaves the range of doubles too early.
        _ => {
            let half = i32::try_from(exponent / 2).unwrap_or(0);
            let rest = i32::try_from(exponent).unwrap_or(0) - half;
            value * 2_f64.powi(half) * 2_f64.powi(rest)
        }
    }
}

/// A histogram in which a sample loses half its weight in every half-life.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: &'static Buckets,
    weights: Vec<f64>,
    total: f64,
    /// The lowest and highest bucket that are not empty.
    lowest: usize,
    highest: usize,
    half_life: Duration,
    /// The time at which a sample has its own weight; `None` before the first.
    reference: Option<Time>,
}

/// A histogram as it is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramCheckpoint {
    /// The time at which a sample has its own weight; `None` for a histogram without samples.
    pub reference: Option<Time>,
    /// Weights of the buckets that are not empty; the heaviest weighs 10,000.
    pub weights: BTreeMap<usize, u32>,
    /// The weight of all.
    pub total: f64,
}

impl Histogram {
    pub(super) fn new(buckets: &'static Buckets, half_life: Duration) -> Self {
        let count = buckets.starts.len();
        Self {
            buckets,
            weights: vec![0.0; count],
            total: 0.0,
            lowest: count - 1,
            highest: 0,
            half_life,
            reference: None,
        }
    }

    pub(super) fn add(&mut self, value: f64, weight: f64, at: Time) {
        let weight = weight * self.decay(at);
        let bucket = self.buckets.find(value);
        self.weights[bucket] += weight;
        self.total += weight;
        if self.weights[bucket] >= EPSILON {
            self.lowest = self.lowest.min(bucket);
            self.highest = self.highest.max(bucket);
        }
    }

    /// Takes a sample out again that was added with the same value, weight and time.
    pub(super) fn subtract(&mut self, value: f64, weight: f64, at: Time) {
        let weight = weight * self.decay(at);
        let bucket = self.buckets.find(value);
        self.total = less(self.total, weight);
        self.weights[bucket] = less(self.weights[bucket], weight);
        self.narrow();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let shifted;
        let mut other = other;
        if self.reference < other.reference {
            if let Some(reference) = other.reference {
                self.shift(reference);
            }
        } else if other.reference < self.reference
            && let Some(reference) = self.reference
        {
            let mut copy = other.clone();
            copy.shift(reference);
            shifted = copy;
            other = &shifted;
        }
        if other.lowest <= other.highest {
            for bucket in other.lowest..=other.highest {
                self.weights[bucket] += other.weights[bucket];
            }
        }
        self.total += other.total;
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weights[self.lowest] < EPSILON
    }

    /// The end of the bucket in which the percentile lies.
    pub(super) fn percentile(&self, percentile: f64) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let threshold = percentile * self.total;
        let mut sum = 0.0;
        let mut bucket = self.lowest;
        while bucket < self.highest {
            sum += self.weights[bucket];
            if sum >= threshold {
                break;
            }
            bucket += 1;
        }
        let starts = &self.buckets.starts;
        starts.get(bucket + 1).or(starts.last()).copied().unwrap_or(0.0)
    }

    pub(super) fn checkpoint(&self) -> HistogramCheckpoint {
        let range = || self.lowest..=self.highest;
        let heaviest = range().map(|bucket| self.weights[bucket]).fold(0.0, f64::max);
        let ratio = CHECKPOINT_WEIGHT / heaviest;
        let weights = range()
            .map(|bucket| (bucket, (self.weights[bucket] * ratio).round() as u32))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        HistogramCheckpoint { reference: self.reference, weights, total: self.total }
    }

    pub(super) fn load(
        checkpoint: &HistogramCheckpoint,
        buckets: &'static Buckets,
        half_life: Duration,
    ) -> Self {
        let mut histogram = Self::new(buckets, half_life);
        histogram.reference = checkpoint.reference;
        let sum: u64 = checkpoint.weights.values().copied().map(u64::from).sum();
        if sum == 0 {
            return histogram;
        }
        let ratio = checkpoint.total / sum as f64;
        for (bucket, weight) in &checkpoint.weights {
            if let Some(known) = histogram.weights.get_mut(*bucket) {
                *known += f64::from(*weight) * ratio;
                histogram.lowest = histogram.lowest.min(*bucket);
                histogram.highest = histogram.highest.max(*bucket);
            }
        }
        histogram.total += checkpoint.total;
        histogram
    }

    /// How much a sample at that time weighs more than one at the reference time.
    fn decay(&mut self, at: Time) -> f64 {
        let reference = match self.reference {
            Some(reference) if at <= reference + self.half_life * EXPONENT_MAX => reference,
            _ => self.shift(at),
        };
        (nanos_between(reference, at) as f64 / self.half_life.as_nanos() as f64).exp2()
    }

    /// Moves the reference time to the half-life nearest to `to`, and returns it.
    fn shift(&mut self, to: Time) -> Time {
        let to = self.nearest_half_life(to);
        if let Some(from) = self.reference {
            let half_lives =
                (nanos_between(to, from) as f64 / self.half_life.as_nanos() as f64).round();
            self.scale(scale_by_two(1.0, half_lives as i64));
        }
        self.reference = Some(to);
        to
    }

    fn nearest_half_life(&self, time: Time) -> Time {
        let step = self.half_life.as_nanos().cast_signed();
        let since_year_one = i128::from(time.as_nanos()) + YEAR_ONE * NANOS;
        let over = since_year_one.rem_euclid(step);
        // Half a step rounds up.
        let rounded =
            if over * 2 < step { since_year_one - over } else { since_year_one - over + step };
        let nanos = rounded - YEAR_ONE * NANOS;
        Time::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    fn scale(&mut self, factor: f64) {
        if self.lowest <= self.highest {
            for bucket in self.lowest..=self.highest {
                self.weights[bucket] *= factor;
            }
        }
        self.total *= factor;
        self.narrow();
    }

    /// Leaves empty buckets out at both ends.
    fn narrow(&mut self) {
        let last = self.weights.len() - 1;
        while self.weights[self.lowest] < EPSILON && self.lowest < last {
            self.lowest += 1;
        }
        while self.weights[self.highest] < EPSILON && self.highest > 0 {
            self.highest -= 1;
        }
    }
}

fn less(value: f64, by: f64) -> f64 {
    let left = value - by;
    if left < EPSILON { 0.0 } else { left }
}

fn nanos_between(from: Time, to: Time) -> i64 {
    to.as_nanos().saturating_sub(from.as_nanos())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_upstreams() {
        assert_eq!((CPU.starts.len(), MEMORY.starts.len()), (176, 176));
        for (millicores, end) in [(5.0, 10), (100.0, 110), (250.0, 258), (1000.0, 1016)] {
            let bucket = CPU.find(millicores / 1000.0);
            assert_eq!((CPU.starts[bucket + 1] * 1000.0) as i64, end, "{millicores}");
        }
        for (mebibytes, end) in [(100_u32, 110_265_643), (500, 546_691_264), (1024, 1_077_095_457)]
        {
            let bucket = MEMORY.find(f64::from(mebibytes) * 1_048_576.0);
            assert_eq!(MEMORY.starts[bucket + 1] as i64, end, "{mebibytes}");
        }
        // Where the last bit of a power shows.
        assert_eq!(MEMORY.starts[4] as i64, 43_101_249);
    }

    #[test]
    fn a_sample_weighs_half_after_a_half_life() {
        let mut histogram = Histogram::new(&CPU, Duration::from_secs(3600));
        histogram.add(1.0, 1.0, Time::from_seconds(0));
        histogram.add(0.1, 1.0, Time::from_seconds(3600));
        // The later one weighs two thirds.
        assert!(histogram.percentile(0.6) < 0.2);
        assert!(histogram.percentile(0.7) > 0.9);
    }

    proptest! {
        /// Taking a sample out again leaves what was there.
        #[test]
        fn subtracting_undoes_adding(
            samples in prop::collection::vec((0.0..100.0_f64, 0..1_000_000_i64), 1..20),
            value in 0.0..100.0_f64, at in 0..1_000_000_i64,
        ) {
            let mut histogram = Histogram::new(&CPU, Duration::from_secs(86_400));
            for (value, at) in &samples {
                histogram.add(*value, 1.0, Time::from_seconds(*at));
            }
            let before = histogram.percentile(0.9);
            histogram.add(value, 1.0, Time::from_seconds(at));
            histogram.subtract(value, 1.0, Time::from_seconds(at));
            prop_assert!((histogram.percentile(0.9) - before).abs() <= before * 0.06 + 0.02);
        }

        /// What is kept says the same as what it was kept from.
        #[test]
        fn a_checkpoint_keeps_the_percentiles(
            samples in prop::collection::vec((0.0..100.0_f64, 0..1_000_000_i64), 1..50),
        ) {
            let half_life = Duration::from_secs(86_400);
            let mut histogram = Histogram::new(&CPU, half_life);
            for (value, at) in &samples {
                histogram.add(*value, 1.0, Time::from_seconds(*at));
            }
            let loaded = Histogram::load(&histogram.checkpoint(), &CPU, half_life);
            prop_assert!((loaded.total - histogram.total).abs() <= histogram.total * 1e-9);
            let (before, after) = (histogram.percentile(0.9), loaded.percentile(0.9));
            prop_assert!((before - after).abs() <= before * 0.11 + 0.02, "{before} {after}");
        }
    }
}
