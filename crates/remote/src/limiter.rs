//! How fast this client may ask: a token bucket, as client-go's. Requests beyond the burst wait
//! their turn in order, so that a busy controller slows down rather than the API server.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Requests a second and at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests a second over a long time; 0 is without limit, as for client-go below zero.
    pub qps: f64,
    /// Requests at once after a pause.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { qps: 0.0, burst: 0 };
}

impl Default for Rate {
    /// kube-scheduler's own defaults (`clientConnection` of its configuration).
    fn default() -> Self {
        Self { qps: 50.0, burst: 100 }
    }
}

/// A limiter that several tasks share.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: Rate,
    bucket: Mutex<Option<(Instant, Bucket)>>,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, bucket: Mutex::new(None) }
    }

    /// Waits for the right to send one request.
    pub(crate) async fn acquire(&self) {
        if self.rate.qps <= 0.0 {
            return;
        }
        let wait = {
            let now = Instant::now();
            let mut guard = self.bucket.lock();
            let (start, bucket) = guard.get_or_insert_with(|| (now, Bucket::full(self.rate)));
            bucket.take(self.rate, now.saturating_duration_since(*start))
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The bucket as a value. Tokens below zero are promised to requests that already wait.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    fn full(rate: Rate) -> Self {
        Self { tokens: f64::from(rate.burst.max(1)), filled_at: Duration::ZERO }
    }

    /// Takes a token at `now` (counted from any fixed start); says how long to wait for it.
    fn take(&mut self, rate: Rate, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + passed * rate.qps).min(f64::from(rate.burst.max(1))) - 1.0;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.tokens / rate.qps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let rate = Rate { qps: 10.0, burst: 3 };
        let mut bucket = Bucket::full(rate);
        let waits: Vec<u128> =
            (0..5).map(|_| bucket.take(rate, Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        // Those that wait have their tokens; a second later the bucket is full again, no more.
        let waits: Vec<u128> =
            (0..4).map(|_| bucket.take(rate, Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn acquiring_takes_as_long_as_the_rate_says() {
        let limiter = Limiter::new(Rate { qps: 50.0, burst: 100 });
        let start = Instant::now();
        for _ in 0..200 {
            limiter.acquire().await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(1_990) && took < Duration::from_millis(2_200));
        let unlimited = Limiter::new(Rate::UNLIMITED);
        let start = Instant::now();
        for _ in 0..1_000 {
            unlimited.acquire().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
