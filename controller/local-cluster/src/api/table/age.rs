//! How long ago, in the few letters that a column has room for.

use jiff::Timestamp;
use serde_json::Value;

/// What is said of a time that nobody knows.
pub(super) const UNKNOWN: &str = "<unknown>";

pub(super) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// How long ago a time was.
pub(super) fn since(value: &Value, now: Timestamp) -> String {
    time(value).map_or_else(|| UNKNOWN.to_owned(), |then| duration(then, now))
}

/// The time between two times, in one or two units.
pub(super) fn duration(from: Timestamp, to: Timestamp) -> String {
    const HOURS_A_DAY: i64 = 24;
    const DAYS_A_YEAR: i64 = 365;
    let seconds = to.duration_since(from).as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    let (days, years) = (hours / HOURS_A_DAY, hours / HOURS_A_DAY / DAYS_A_YEAR);
    let two = |large: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    // Clocks of two machines are never quite the same.
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, 'd', hours % HOURS_A_DAY, 'h'),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two(years, 'y', days % DAYS_A_YEAR, 'd'),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let now = Timestamp::UNIX_EPOCH;
        let day = 86_400;
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_860, "3h1m"),
            (8 * 3_600, "8h"),
            (2 * day + 3_600, "2d1h"),
            (8 * day, "8d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (3_000 * day, "8y"),
        ] {
            let to = now + SignedDuration::from_secs(seconds);
            assert_eq!(duration(now, to), expected, "{seconds}");
        }
    }
}
