//! A history as a line of text, so that it outlives the controller: kept with the object that it is
//! about, and written a few dozen times in a season.
//!
//! ```text
//! v1 300 5938144 1200/2400/2 2x12,3,-x4,5
//! ```
//! are: the version; seconds of a bucket; the number of the first bucket since the epoch; what
//! forecasts have been worth; and the buckets from the first one on, `x` telling how often one is
//! repeated, `-` that nothing is known.

use std::fmt::Write;
use std::time::Duration;

use wharf_model::time::Time;

use super::{History, Settings, Worth, bucket, kept};

/// The form. One of another version is passed over, as if there were none.
const VERSION: &str = "v1";
/// How many buckets go by between two checkpoints: a 48th of a season, which is half an hour of a
/// day, is what a restart may lose.
const BUCKETS_PER_ROUND: i64 = 6;

impl History {
    /// The history as text. It is as long as there are different buckets: of a week in buckets of
    /// five minutes at most some ten thousand characters, of a workload at rest a few dozen.
    pub fn checkpoint(&self) -> String {
        let Worth { extra_pod_seconds, ready_pod_seconds, hits } = self.worth;
        let first = self.buckets.first_key_value().map_or(0, |(number, _)| *number);
        let mut text = format!(
            "{VERSION} {} {first} {extra_pod_seconds}/{ready_pod_seconds}/{hits} ",
            self.bucket.as_secs()
        );
        let mut runs: Vec<(Option<i32>, i64)> = Vec::new();
        let mut put = |value: Option<i32>, times: i64| match runs.last_mut() {
            _ if times == 0 => {}
            Some((last, count)) if *last == value => *count += times,
            _ => runs.push((value, times)),
        };
        let mut next = first;
        for (number, most) in &self.buckets {
            put(None, number - next);
            put(Some(*most), 1);
            next = number + 1;
        }
        for (index, (value, times)) in runs.into_iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            let written = match value {
                Some(value) => write!(text, "{value}"),
                None => write!(text, "-"),
            };
            let written = if times > 1 { written.and(write!(text, "x{times}")) } else { written };
            written.expect("invariant: memory takes what is written");
        }
        text
    }

    /// The history that a text holds. `None` if it cannot be read, or is of other buckets than these
    /// settings have. What it says of the future is left out.
    pub fn restore(settings: &Settings, text: &str, now: Time) -> Option<Self> {
        let mut fields = text.trim().split(' ');
        if fields.next()? != VERSION {
            return None;
        }
        let width = Duration::from_secs(fields.next()?.parse().ok()?);
        if width != Duration::from_secs(settings.bucket.as_secs()) {
            return None;
        }
        let (present, kept) = (bucket(settings, now), kept(settings));
        let mut number: i64 = fields.next()?.parse().ok()?;
        let worth = worth(fields.next()?)?;
        let mut history = Self { bucket: settings.bucket, worth, ..Self::default() };
        for run in fields.next()?.split(',').filter(|run| !run.is_empty()) {
            let (value, times) = run.split_once('x').unwrap_or((run, "1"));
            let times: i64 = times.parse().ok().filter(|times| (1..=kept + 1).contains(times))?;
            let after = number.checked_add(times)?;
            if value != "-" {
                let value: i32 = value.parse().ok().filter(|value| *value >= 0)?;
                // However much the text claims, no more is held than is ever kept.
                let numbers = number.max(present - kept)..after.min(present + 1);
                history.buckets.extend(numbers.map(|number| (number, value)));
            }
            number = after;
        }
        fields.next().is_none().then_some(history)
    }

    /// The round of checkpoints that a history was last written in, by its last bucket; `None` if it
    /// is empty.
    pub fn last_round(&self, draw: u64) -> Option<i64> {
        self.buckets.last_key_value().map(|(number, _)| round_of(*number, draw))
    }
}

/// The number of the round of checkpoints that is due at a moment. `draw` spreads the objects, lest
/// all of them be written at once.
pub fn round(settings: &Settings, now: Time, draw: u64) -> i64 {
    round_of(bucket(settings, now), draw)
}

fn round_of(number: i64, draw: u64) -> i64 {
    let shift = i64::try_from(draw % BUCKETS_PER_ROUND.unsigned_abs()).unwrap_or(0);
    number.saturating_add(shift).div_euclid(BUCKETS_PER_ROUND)
}

fn worth(text: &str) -> Option<Worth> {
    let mut numbers = text.split('/');
    let worth = Worth {
        extra_pod_seconds: numbers.next()?.parse().ok()?,
        ready_pod_seconds: numbers.next()?.parse().ok()?,
        hits: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(worth)
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

    fn at(minute: i64) -> Time {
        Time::from_seconds(minute * 60)
    }

    #[test]
    fn a_history_is_a_short_line() {
        let mut history = History::default();
        for minute in (100..112).chain([113]).chain(118..120) {
            let asked = if minute < 112 { 2 } else { 3 + i32::from(minute == 119) };
            history.observe(&settings(), at(minute), asked, Some(2));
        }
        let text = history.checkpoint();
        assert_eq!(text, "v1 60 100 0/0/0 2x12,-,3,-x4,3,4");
        let restored = History::restore(&settings(), &text, at(119)).expect("it is one");
        assert_eq!(restored.buckets, history.buckets);
        assert_eq!(restored.checkpoint(), text);
        // A clock that was set back knows nothing of what is to come.
        let back = History::restore(&settings(), &text, at(105)).expect("it is one");
        assert_eq!(back.checkpoint(), "v1 60 100 0/0/0 2x6");
    }

    #[test]
    fn what_cannot_be_read_counts_as_nothing() {
        for text in [
            "",
            "v2 60 100 0/0/0 2",
            "v1 300 100 0/0/0 2",
            "v1 60 x 0/0/0 2",
            "v1 60 100 0/0 2",
            "v1 60 100 0/0/0 2x",
            "v1 60 100 0/0/0 -2",
            "v1 60 100 0/0/0 2x99999999999",
            "v1 60 100 0/0/0 2 3",
            "v1 60 9223372036854775807 0/0/0 2x5",
        ] {
            assert_eq!(History::restore(&settings(), text, at(200)), None, "{text:?}");
        }
    }

    #[test]
    fn other_buckets_begin_anew() {
        let mut history = History::default();
        history.observe(&settings(), at(100), 5, None);
        let coarse = Settings { bucket: Duration::from_secs(600), ..settings() };
        history.observe(&coarse, at(101), 3, None);
        assert_eq!(history.checkpoint(), "v1 600 10 0/0/0 3");
    }

    #[test]
    fn rounds_are_spread_over_the_objects() {
        let rounds = |draw| {
            (0..60).filter(move |minute| {
                round(&settings(), at(*minute), draw) != round(&settings(), at(minute - 1), draw)
            })
        };
        assert_eq!(rounds(0).collect::<Vec<_>>(), (0..10).map(|n| n * 6).collect::<Vec<_>>());
        assert_eq!(rounds(2).next(), Some(4));
    }

    proptest! {
        /// What is written is read again, and forecasts the same.
        #[test]
        fn nothing_is_lost(
            asked in prop::collection::vec((0..50_i32, 1..40_i64), 1..200),
        ) {
            let (mut history, mut minute) = (History::default(), 1_000);
            for (asked, gap) in asked {
                minute += gap;
                history.observe(&settings(), at(minute), asked, Some(3));
            }
            let text = history.checkpoint();
            let restored = History::restore(&settings(), &text, at(minute)).expect("it is one");
            prop_assert_eq!(&restored.buckets, &history.buckets);
            prop_assert_eq!(restored.worth(), history.worth());
            for later in [0, 1, 30, 59] {
                let now = at(minute + later);
                prop_assert_eq!(
                    restored.forecast(&settings(), now), history.forecast(&settings(), now)
                );
            }
        }

        /// Whatever somebody writes there is read or passed over, and never more is held than is kept.
        #[test]
        fn no_text_does_harm(text in "(v1 60 )?[-0-9x,/ v]{0,60}") {
            if let Some(history) = History::restore(&settings(), &text, at(100)) {
                prop_assert!(history.buckets.len() <= 60 * 4 + 1);
            }
        }
    }
}
