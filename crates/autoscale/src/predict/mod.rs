//! Forecasts of load that comes back: a workload that was busy at this time of day is likely to be
//! busy again, and its pods take a while to come.
//!
//! The history of an object is what its metrics asked for, in buckets of time. The forecast is
//! seasonal and plain: the most that was asked for around that time in past seasons, weighted
//! towards the recent ones. It only ever raises a floor, so that a wrong forecast costs pods for a
//! while and never availability. What it was worth is counted: seconds in which the floor held more
//! pods than metrics asked for (the price), and seconds in which metrics asked for what the floor
//! had brought ahead of time (the gain).
//!
//! Pure: no clock, no randomness; the same history has the same forecast.

mod checkpoint;

use std::collections::BTreeMap;
use std::time::Duration;

use wharf_model::time::Time;

pub use checkpoint::round;

/// How an object is forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// After how long load comes back.
    pub season: Duration,
    /// How finely the season is told apart.
    pub bucket: Duration,
    /// How far ahead the floor looks: about what a pod needs to become ready, machines included.
    pub ahead: Duration,
    /// How many past seasons count.
    pub seasons_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            season: Duration::from_secs(24 * 3600),
            bucket: Duration::from_secs(300),
            ahead: Duration::from_secs(300),
            seasons_max: 7,
        }
    }
}

/// What is remembered of an object, and what its forecasts have been worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The most that was asked for in each bucket, by the bucket's number since the epoch.
    buckets: BTreeMap<i64, i32>,
    /// How wide those are.
    bucket: Duration,
    last: Option<Observation>,
    worth: Worth,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Observation {
    at: Time,
    asked: i32,
    floor: i32,
}

/// What forecasts have been worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worth {
    /// Pod-seconds that the floor held beyond what metrics asked for.
    pub extra_pod_seconds: u64,
    /// Pod-seconds of demand that rose onto pods which a floor had brought before: without it they
    /// would have been missing until new ones were ready.
    pub ready_pod_seconds: u64,
    /// How often demand came up to or over a floor that had been raised for it.
    pub hits: u32,
}

/// A forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// At least so many replicas will be asked for.
    pub floor: i32,
    /// From how many past seasons.
    pub seasons: u32,
}

impl History {
    /// Takes in what metrics ask for, and which floor held at that time.
    pub fn observe(&mut self, settings: &Settings, at: Time, asked: i32, floor: Option<i32>) {
        let floor = floor.unwrap_or(0);
        if let Some(last) = self.last {
            let seconds = at.since(last.at).as_secs();
            self.worth.count(&last, asked, seconds, settings.ahead);
        }
        self.last = Some(Observation { at, asked, floor });
        if self.bucket != settings.bucket {
            // Numbers of other buckets say nothing.
            self.buckets.clear();
            self.bucket = settings.bucket;
        }
        let number = bucket(settings, at);
        let most = self.buckets.entry(number).or_insert(asked);
        *most = (*most).max(asked);
        while let Some((oldest, _)) = self.buckets.first_key_value()
            && *oldest < number - kept(settings)
        {
            self.buckets.pop_first();
        }
    }

    /// What will be asked for between now and the end of the look ahead. `None` as long as no
    /// season has passed.
    pub fn forecast(&self, settings: &Settings, now: Time) -> Option<Forecast> {
        if self.bucket != settings.bucket {
            return None;
        }
        let first = bucket(settings, now);
        let last = bucket(settings, now + settings.ahead);
        let (mut weighted, mut weights, mut seasons) = (0.0, 0.0, 0);
        for season in 1..=settings.seasons_max {
            let back = per_season(settings) * i64::from(season);
            let most = self.buckets.range(first - back..=last - back).map(|(_, most)| *most).max();
            let Some(most) = most else { continue };
            // Each season back counts half as much as the one after it.
            let weight = 0.5_f64.powi(i32::try_from(season).unwrap_or(i32::MAX) - 1);
            weighted += weight * f64::from(most);
            weights += weight;
            seasons += 1;
        }
        // A saturating cast of a mean of counts.
        (seasons > 0).then(|| Forecast { floor: (weighted / weights).ceil() as i32, seasons })
    }

    /// Whether nothing has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// What forecasts have been worth so far.
    pub fn worth(&self) -> Worth {
        self.worth
    }
}

impl Worth {
    fn count(&mut self, last: &Observation, asked: i32, seconds: u64, ahead: Duration) {
        let pods = |count: i32| u64::from(count.max(0).unsigned_abs());
        self.extra_pod_seconds += pods(last.floor - last.asked) * seconds;
        // Demand that rises by no more than the floor had brought finds its pods ready; without
        // the floor each of them would have been missing for about as long as pods take to come.
        if asked > last.asked && last.floor > last.asked {
            let found = asked.min(last.floor) - last.asked;
            self.ready_pod_seconds += pods(found) * ahead.as_secs();
            self.hits += 1;
        }
    }
}

fn bucket(settings: &Settings, at: Time) -> i64 {
    at.as_nanos().div_euclid(nanos(settings.bucket))
}

/// How many buckets are kept: those of the present season and of those that count.
fn kept(settings: &Settings) -> i64 {
    per_season(settings) * (i64::from(settings.seasons_max) + 1)
}

fn per_season(settings: &Settings) -> i64 {
    (nanos(settings.season) / nanos(settings.bucket)).max(1)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        Settings {
            season: Duration::from_secs(3600),
            bucket: Duration::from_secs(60),
            ahead: Duration::from_secs(300),
            seasons_max: 3,
        }
    }

    /// Busy from minute 30 to 40 of each hour.
    fn asked(at: Time) -> i32 {
        let minute = at.as_nanos() / 60_000_000_000 % 60;
        if (30..40).contains(&minute) { 10 } else { 2 }
    }

    #[test]
    fn load_that_came_at_this_time_is_foreseen_and_its_worth_counted() {
        let settings = settings();
        let mut history = History::default();
        let mut raised_at = None;
        for pass in 0..720 {
            let now = Time::from_seconds(pass * 15);
            let forecast = history.forecast(&settings, now);
            // The look ahead meets the beginning of the history five minutes early.
            if pass < 220 {
                assert_eq!(forecast, None, "no season has passed");
            }
            let floor = forecast.map(|forecast| forecast.floor);
            if floor == Some(10) && raised_at.is_none() {
                raised_at = Some(pass * 15 % 3600 / 60);
            }
            history.observe(&settings, now, asked(now), floor);
        }
        assert_eq!(raised_at, Some(25), "five minutes ahead");
        let worth = history.worth();
        assert_eq!(worth.hits, 2);
        assert_eq!(worth.ready_pod_seconds, 2 * 8 * 300);
        // Eight pods for five minutes, twice; nothing is held once demand is there or over.
        assert_eq!(worth.extra_pod_seconds, 2 * 8 * 300);
    }

    #[test]
    fn recent_seasons_count_more() {
        let settings = settings();
        let mut history = History::default();
        for (hour, asked) in [(0, 2), (1, 8)] {
            history.observe(&settings, Time::from_seconds(hour * 3600), asked, None);
        }
        let forecast = history.forecast(&settings, Time::from_seconds(2 * 3600)).expect("one");
        assert_eq!(forecast, Forecast { floor: 6, seasons: 2 });
    }

    proptest! {
        /// A forecast is never outside what was ever asked for, and memory stays bounded.
        #[test]
        fn forecasts_stay_within_history(
            counts in prop::collection::vec(0..50_i32, 1..300), step in 1..20_i64,
        ) {
            let settings = settings();
            let mut history = History::default();
            for (pass, asked) in counts.iter().enumerate() {
                let now = Time::from_seconds(i64::try_from(pass).unwrap() * step * 60);
                history.observe(&settings, now, *asked, None);
                if let Some(forecast) = history.forecast(&settings, now) {
                    let (low, high) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                    prop_assert!((low..=high).contains(&&forecast.floor));
                }
                prop_assert!(history.buckets.len() <= 60 * 4 + 1);
            }
        }
    }
}
