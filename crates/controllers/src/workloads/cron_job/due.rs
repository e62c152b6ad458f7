//! When a CronJob's next Job is due, by upstream's arithmetic for times that were missed.

use std::time::Duration;

use wharf_model::cron::{Schedule, Zone};
use wharf_model::time::Time;

/// Above so many missed times somebody should know.
const MISSED_MAX: u64 = 100;

/// What a schedule says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The last moment that has come since a Job was made; none if it has not come yet.
    pub(super) last: Option<Time>,
    /// Whether very many moments have passed without a Job.
    pub(super) too_many_missed: bool,
}

/// The last moment of a schedule after `earliest` that has come by `now`.
pub(super) fn due(schedule: &Schedule, zone: &Zone, earliest: Time, now: Time) -> Due {
    let Some(first) = schedule.next(earliest, zone).filter(|first| *first <= now) else {
        return Due::default();
    };
    let once = Due { last: Some(first), too_many_missed: false };
    let Some(second) = schedule.next(first, zone).filter(|second| *second <= now) else {
        return once;
    };
    let between = second.since(first).as_secs();
    if between == 0 {
        return once;
    }
    // Not every moment is walked through: the first two say how often they come, and the walk
    // begins so many of them back; further back where they do not come that regularly.
    let steps = now.since(first).as_secs() / between;
    let mut back = 1;
    loop {
        let begin = steps.saturating_sub(back);
        let mut at = first + Duration::from_secs(between * begin);
        let mut last = None;
        while let Some(next) = schedule.next(at, zone).filter(|next| *next <= now) {
            last = Some(next);
            at = next;
        }
        if last.is_some() || begin == 0 {
            let too_many_missed = steps + 1 > MISSED_MAX;
            return Due { last: last.or(Some(first)), too_many_missed };
        }
        back *= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_seconds(1_767_225_600 + seconds)
    }

    #[test]
    fn the_last_moment_that_has_come_is_due() {
        for (schedule, earliest, now, expected) in [
            ("*/5 * * * *", 0, 299, (None, false)),
            ("*/5 * * * *", 0, 300, (Some(300), false)),
            ("*/5 * * * *", 0, 1_000, (Some(900), false)),
            ("*/5 * * * *", 0, 40_000, (Some(39_900), true)),
            ("@every 90s", 10, 99, (None, false)),
            ("@every 90s", 10, 290, (Some(280), false)),
            ("0 0 31 2 *", 0, 1_000_000, (None, false)),
        ] {
            let schedule = Schedule::parse(schedule).expect("a schedule");
            let due = due(&schedule, &Zone::UTC, at(earliest), at(now));
            let last = due.last.map(|last| last.as_seconds() - at(0).as_seconds());
            assert_eq!((last, due.too_many_missed), expected, "{schedule:?} {earliest} {now}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_last_for_regular_schedules(
            step in 1_i64..30, earliest in 0_i64..100_000, span in 0_i64..50_000,
        ) {
            let schedule = Schedule::parse(&format!("*/{step} * * * *")).unwrap();
            let (earliest, now) = (at(earliest), at(earliest + span));
            let due = due(&schedule, &Zone::UTC, earliest, now);
            let mut walked = None;
            let mut next = schedule.next(earliest, &Zone::UTC);
            while let Some(at) = next.filter(|at| *at <= now) {
                walked = Some(at);
                next = schedule.next(at, &Zone::UTC);
            }
            prop_assert_eq!(due.last, walked);
        }
    }
}
