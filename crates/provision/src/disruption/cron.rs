//! Budget windows' schedules: five-field cron in UTC, as `robfig/cron` reads it.
//!
//! Fields are minute, hour, day of month, month, day of week, each `*`, `?`, a value, a range, a
//! list, or any of these with a step; months and weekdays also by their English abbreviation; and
//! the macros `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`.
//! Where both day fields are restricted a day matches if either does.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use wharf_model::time::Time;

/// When a window opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days_of_month: u64,
    months: u64,
    days_of_week: u64,
    /// Both day fields are restricted, so either may match.
    either_day: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {found}: {text:?}")]
    FieldCount {
        /// How many there are.
        found: usize,
        /// The whole text.
        text: String,
    },
    /// A word after `@` that is not known.
    #[error("unrecognized descriptor: {0:?}")]
    Macro(String),
    /// A field that cannot be read.
    #[error("{field:?} is no {name} between {low} and {high}")]
    Field {
        /// The field's text.
        field: String,
        /// What the field is.
        name: &'static str,
        /// Least value.
        low: u32,
        /// Greatest value.
        high: u32,
    },
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    words: &'static [&'static str],
}

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MINUTE: Field = Field { name: "minute", low: 0, high: 59, words: &[] };
const HOUR: Field = Field { name: "hour", low: 0, high: 23, words: &[] };
const DAY_OF_MONTH: Field = Field { name: "day of month", low: 1, high: 31, words: &[] };
const MONTH: Field = Field { name: "month", low: 1, high: 12, words: MONTHS };
const DAY_OF_WEEK: Field = Field { name: "day of week", low: 0, high: 6, words: WEEKDAYS };

/// A schedule that does not fire within so many years (February 30th) never does: upstream's bound.
const YEARS_MAX: i16 = 5;

impl Schedule {
    /// The first time strictly after `after` at which this fires; `None` if it never does.
    pub fn next_after(&self, after: Time) -> Option<Time> {
        let start = (after.truncate_to_second() + Duration::from_secs(1)).timestamp();
        let start = start.to_zoned(TimeZone::UTC).datetime();
        // Cron fires on whole minutes; round up.
        let (mut date, mut hour, mut minute) = (start.date(), start.hour(), start.minute());
        if start.second() > 0 {
            minute += 1;
        }
        let last_year = date.year() + YEARS_MAX;
        loop {
            if minute > 59 {
                (hour, minute) = (hour + 1, 0);
            }
            if hour > 23 {
                (date, hour, minute) = (date.tomorrow().ok()?, 0, 0);
            }
            if date.year() > last_year {
                return None;
            }
            if !has(self.months, date.month()) {
                let next = date.last_of_month().tomorrow().ok()?;
                (date, hour, minute) = (next, 0, 0);
            } else if !self.day_matches(date) {
                (hour, minute) = (24, 0);
            } else if !has(self.hours, hour) {
                (hour, minute) = (hour + 1, 0);
            } else if !has(self.minutes, minute) {
                minute += 1;
            } else {
                return at(date, hour, minute);
            }
        }
    }

    fn day_matches(&self, date: Date) -> bool {
        let of_month = has(self.days_of_month, date.day());
        let of_week = has(self.days_of_week, date.weekday().to_sunday_zero_offset());
        if self.either_day { of_month || of_week } else { of_month && of_week }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let expanded = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            word if word.starts_with('@') => return Err(ScheduleError::Macro(word.to_owned())),
            text => text,
        };
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let [minute, hour, day_of_month, month, day_of_week] = fields[..] else {
            return Err(ScheduleError::FieldCount { found: fields.len(), text: text.to_owned() });
        };
        Ok(Self {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days_of_month: DAY_OF_MONTH.parse(day_of_month)?,
            months: MONTH.parse(month)?,
            days_of_week: DAY_OF_WEEK.parse(day_of_week)?,
            either_day: !is_star(day_of_month) && !is_star(day_of_week),
        })
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').try_fold(0, |bits, part| Ok(bits | self.part(part)?))
    }

    fn part(&self, text: &str) -> Result<u64, ScheduleError> {
        let error = || ScheduleError::Field {
            field: text.to_owned(),
            name: self.name,
            low: self.low,
            high: self.high,
        };
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| error())?)),
            None => (text, None),
        };
        let (low, high) = match range {
            "*" | "?" => (self.low, self.high),
            range => match range.split_once('-') {
                Some((low, high)) => {
                    (self.value(low).ok_or_else(error)?, self.value(high).ok_or_else(error)?)
                }
                // `n/step` means from n on.
                None => {
                    let value = self.value(range).ok_or_else(error)?;
                    (value, if step.is_some() { self.high } else { value })
                }
            },
        };
        let step = step.unwrap_or(1);
        if low < self.low || high > self.high || low > high || step == 0 {
            return Err(error());
        }
        Ok((low..=high).step_by(step as usize).fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u32> {
        if let Ok(value) = text.parse() {
            return Some(value);
        }
        let index = self.words.iter().position(|word| text.eq_ignore_ascii_case(word))?;
        u32::try_from(index).ok().map(|index| index + self.low)
    }
}

fn is_star(text: &str) -> bool {
    text.split(',').any(|part| matches!(part.split('/').next(), Some("*" | "?")))
}

fn has(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

fn at(date: Date, hour: i8, minute: i8) -> Option<Time> {
    let moment = DateTime::from_parts(date, jiff::civil::time(hour, minute, 0, 0));
    let timestamp = moment.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let time = Time::from(timestamp);
    // Cluster time ends in the year 2262.
    (time.timestamp() == timestamp).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> Option<String> {
        let schedule: Schedule = schedule.parse().unwrap();
        let after: jiff::Timestamp = after.parse().unwrap();
        schedule.next_after(after.into()).map(|time| time.to_string())
    }

    #[test]
    fn next_times() {
        let table = [
            ("0 9 * * mon-fri", "2026-08-21T09:00:00Z", "2026-08-24T09:00:00Z"),
            ("0 9 * * 1-5", "2026-08-21T08:59:59Z", "2026-08-21T09:00:00Z"),
            ("*/15 * * * *", "2026-08-21T08:59:30Z", "2026-08-21T09:00:00Z"),
            ("5/20 3 * * *", "2026-08-21T03:05:00Z", "2026-08-21T03:25:00Z"),
            ("@daily", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            ("@hourly", "2026-12-31T23:00:00Z", "2027-01-01T00:00:00Z"),
            ("@weekly", "2026-08-21T00:00:00Z", "2026-08-23T00:00:00Z"),
            ("@monthly", "2026-08-21T00:00:00Z", "2026-09-01T00:00:00Z"),
            ("@yearly", "2026-08-21T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2026-08-21T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Both day fields restricted: the 13th or a Friday.
            ("0 0 13 * FRI", "2026-08-10T00:00:00Z", "2026-08-13T00:00:00Z"),
            ("0 0 13 * FRI", "2026-08-13T00:00:00Z", "2026-08-14T00:00:00Z"),
            ("1,31 0 1 jan ?", "2026-08-13T00:00:00Z", "2027-01-01T00:01:00Z"),
        ];
        for (schedule, after, expected) in table {
            assert_eq!(next(schedule, after).as_deref(), Some(expected), "{schedule} {after}");
        }
        assert_eq!(next("0 0 30 2 *", "2026-08-21T00:00:00Z"), None);
        assert_eq!(next("@yearly", "2262-01-01T00:00:00Z"), None);
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@reboot",
            "x * * * *",
            "* * * * 7",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text:?} was accepted");
        }
        assert_eq!(
            "61 * * * *".parse::<Schedule>().unwrap_err().to_string(),
            "\"61\" is no minute between 0 and 59"
        );
    }
}
