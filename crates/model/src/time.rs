//! Points in cluster time. The only time a decision ever sees is a [`Time`] handed to it.

use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time as MetaTime};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A point in cluster time: nanoseconds since the Unix epoch.
///
/// An `i64` of nanoseconds reaches the year 2262; arithmetic saturates there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The last point that can be told.
    pub const MAX: Self = Self(i64::MAX);

    /// From nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From whole seconds since the Unix epoch; saturates.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// The same point cut to the whole second, as `metav1.Time` holds it.
    pub const fn truncate_to_second(self) -> Self {
        Self::from_seconds(self.as_seconds())
    }

    /// The time passed since `earlier`, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As the API's `metav1.Time`: whole seconds, so that a typed object equals its JSON form.
    pub fn to_meta(self) -> MetaTime {
        MetaTime(self.truncate_to_second().timestamp())
    }

    /// As the API's `metav1.MicroTime`: whole microseconds.
    pub fn to_micro(self) -> MicroTime {
        MicroTime(Self(self.0.div_euclid(1_000) * 1_000).timestamp())
    }

    /// As a `jiff` timestamp.
    pub fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(timestamp: jiff::Timestamp) -> Self {
        let nanos = timestamp.as_nanosecond();
        Self(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl From<&MetaTime> for Time {
    fn from(time: &MetaTime) -> Self {
        time.0.into()
    }
}

impl From<&MicroTime> for Time {
    fn from(time: &MicroTime) -> Self {
        time.0.into()
    }
}

/// RFC 3339 in UTC, whole seconds: `2026-11-21T10:00:00Z`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.truncate_to_second().timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_times_are_cut_to_their_precision() {
        let time = Time::from_nanos(1_700_000_000_123_456_789);
        assert_eq!(Time::from(&time.to_meta()), Time::from_seconds(1_700_000_000));
        assert_eq!(Time::from(&time.to_micro()), Time::from_nanos(1_700_000_000_123_456_000));
        assert_eq!(time.to_string(), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Time::MAX + Duration::from_secs(1), Time::MAX);
        assert_eq!(Time::EPOCH.since(Time::MAX), Duration::ZERO);
        assert_eq!((Time::from_seconds(5) - Duration::from_secs(2)).as_seconds(), 3);
        assert_eq!(Time::from_nanos(-1).as_seconds(), -1);
    }
}
