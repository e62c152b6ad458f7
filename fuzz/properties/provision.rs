//! What must hold of any schedule of a disruption budget.

use std::time::Duration;

use wharf_model::time::Time;
use wharf_provision::disruption::cron::Schedule;

/// A schedule: it fires in the future, on whole minutes, and never skips a time it fires at.
pub(crate) fn cron(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(schedule) = text.parse::<Schedule>() else { return };
    let year = Duration::from_secs(366 * 86_400);
    for now in [
        Time::from_nanos(i64::MIN),
        Time::EPOCH,
        Time::from_seconds(1_790_000_001),
        Time::MAX - year,
        Time::MAX,
    ] {
        let Some(next) = schedule.next_after(now) else { continue };
        assert!(next > now && next.as_seconds() % 60 == 0, "{next} after {now}");
        let before = next - Duration::from_secs(1);
        assert_eq!(schedule.next_after(before), Some(next));
    }
}
