//! Requests of clients that wait for the answer before they make the next one.
//!
//! Asymptotic bounds of a closed queueing network (Denning and Buzen's operational laws): answers
//! take at least what a request needs by itself, and no more requests are answered than the
//! endpoint that is busiest can take; the latency is the smallest that satisfies both.

/// The kernel's period of bandwidth control, `cpu.cfs_period_us`.
const PERIOD: f64 = 0.1;
/// Beginnings within the period over which the mean is taken.
const BEGINNINGS: u32 = 20;
/// Clients give up after this long.
pub(crate) const PATIENCE: f64 = 30.0;

/// A client, as one of the services it asks sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Client {
    /// Requests to this service in a round.
    pub(crate) requests: f64,
    /// Seconds of a round but for these requests.
    pub(crate) elsewhere: f64,
    /// The share of the processor time it wants that it gets: rounds slow down by it.
    pub(crate) pace: f64,
}

impl Client {
    /// Requests a second at a latency.
    pub(crate) fn rate(&self, latency: f64) -> f64 {
        self.pace * self.requests / (self.elsewhere + self.requests * latency).max(1e-6)
    }
}

/// The latency at which clients make no more requests than can be answered. `alone` is what a
/// request takes by itself, `capacity` how many a second are answered at most, `open` how many
/// come whether or not anything is answered.
pub(crate) fn latency(clients: &[Client], open: f64, alone: f64, capacity: f64) -> f64 {
    let asked = |latency: f64| open + clients.iter().map(|c| c.rate(latency)).sum::<f64>();
    if asked(alone) <= capacity {
        return alone.min(PATIENCE);
    }
    if asked(PATIENCE) > capacity {
        return PATIENCE;
    }
    let (mut low, mut high) = (alone, PATIENCE);
    // Halving thirty seconds so often leaves less than a nanosecond.
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if asked(middle) > capacity { low = middle } else { high = middle }
    }
    high
}

/// Seconds that `work` seconds of processor time take within a limit in cores, for a process that
/// has not used up its quota before: the mean over all beginnings within a period.
pub(crate) fn throttled(work: f64, limit: f64) -> f64 {
    let quota = limit * PERIOD;
    if limit >= 1.0 || work <= 0.0 {
        return work.max(0.0);
    }
    if quota <= 1e-6 {
        return PATIENCE;
    }
    let sum: f64 = (0..BEGINNINGS)
        .map(|index| {
            let begin = PERIOD * (f64::from(index) + 0.5) / f64::from(BEGINNINGS);
            let first = quota.min(PERIOD - begin);
            if work <= first {
                return work;
            }
            // Whole periods at the quota, then what is left from the start of the next one.
            let rest = work - first;
            let periods = (rest / quota).ceil() - 1.0;
            PERIOD - begin + periods * PERIOD + (rest - periods * quota)
        })
        .sum();
    (sum / f64::from(BEGINNINGS)).min(PATIENCE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(elsewhere: f64) -> Client {
        Client { requests: 1.0, elsewhere, pace: 1.0 }
    }

    #[test]
    fn a_limit_makes_requests_wait_for_the_next_period() {
        for (work, limit, low, high) in [
            (0.07, 2.0, 0.07, 0.07),
            (0.07, 1.0, 0.07, 0.07),
            // Half of the beginnings are stalled for 50 ms less where in the period they are.
            (0.07, 0.5, 0.085, 0.1),
            (0.001, 0.5, 0.001, 0.002),
            (1.0, 0.1, 9.0, 10.5),
        ] {
            let took = throttled(work, limit);
            assert!((low..=high).contains(&took), "{work} at {limit}: {took}");
        }
    }

    #[test]
    fn one_client_is_answered_as_fast_as_it_can_be() {
        assert_eq!(
            latency(&[client(0.02)], 0.0, 0.1, 7.0),
            latency(&[client(0.02)], 0.0, 0.1, 7.0)
        );
        assert!((latency(&[client(0.1)], 0.0, 0.1, 100.0) - 0.1).abs() < 1e-9);
        // Ten clients without pauses at an endpoint that answers ten a second wait a second.
        let ten = vec![client(0.0); 10];
        assert!((latency(&ten, 0.0, 0.1, 10.0) - 1.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn no_more_is_answered_than_can_be(
            pauses in proptest::collection::vec(0.0_f64..2.0, 1..20),
            alone in 0.001_f64..1.0,
            capacity in 1.0_f64..500.0,
        ) {
            let clients: Vec<Client> = pauses.iter().map(|pause| client(*pause)).collect();
            let latency = latency(&clients, 0.0, alone, capacity);
            let asked: f64 = clients.iter().map(|client| client.rate(latency)).sum();
            prop_assert!(latency >= alone);
            prop_assert!(asked <= capacity * (1.0 + 1e-6));
            // One more client makes it no faster.
            let mut more = clients.clone();
            more.push(client(0.1));
            prop_assert!(super::latency(&more, 0.0, alone, capacity) >= latency - 1e-9);
        }

        #[test]
        fn a_tighter_limit_is_no_faster(work in 0.0_f64..2.0, limit in 0.01_f64..1.5, less in 0.0_f64..1.0) {
            let (full, cut) = (throttled(work, limit), throttled(work, limit * less));
            prop_assert!(cut >= full - 1e-9);
            prop_assert!(full >= work.min(PATIENCE) - 1e-9);
        }
    }
}
