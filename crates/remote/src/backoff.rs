//! How long to wait before trying again: doubling, with a limit, and jittered so that many clients
//! of a server that comes back do not ask all at once. The jitter is drawn from the seeded
//! generator, so that a test can repeat it.

use std::time::Duration;

use wharf_model::random::Random;

/// The first delay; client-go's reflectors begin with the same.
const FIRST: Duration = Duration::from_millis(800);
/// The longest delay, before jitter.
const MAX: Duration = Duration::from_secs(30);

/// Delays of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    failures: u32,
    random: Random,
}

impl Backoff {
    /// The delays for one purpose.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self { failures: 0, random: Random::for_purpose(seed, purpose) }
    }

    /// The delay after one more failure: between one and two times the doubled first one.
    pub(crate) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.after(self.failures)
    }

    /// The delay after so many failures, for one who counts them.
    pub(crate) fn after(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let base = FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(MAX);
        base + self.below(base)
    }

    /// It went well: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How often it has failed since it last went well.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// A random part of a duration.
    pub(crate) fn below(&mut self, whole: Duration) -> Duration {
        let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.between(0, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_start_anew_after_success() {
        let mut backoff = Backoff::new(1, "pods");
        for base in [800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000] {
            let base = Duration::from_millis(base);
            let delay = backoff.next();
            assert!(delay >= base && delay <= base * 2, "{delay:?} for {base:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST * 2);
    }

    #[test]
    fn a_seed_repeats_and_purposes_differ() {
        let draw = |seed, purpose| {
            let mut backoff = Backoff::new(seed, purpose);
            [backoff.next(), backoff.next()]
        };
        assert_eq!(draw(1, "pods"), draw(1, "pods"));
        assert_ne!(draw(1, "pods"), draw(1, "nodes"));
    }
}
