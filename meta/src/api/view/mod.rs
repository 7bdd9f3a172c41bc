//! The agreed state and the reports together, as they are told to people.

mod node;
mod volume;

use ankole_proto::rpc::v1 as rpc;

use crate::state::{Event, Snapshot, State, record};

pub(super) use node::nodes;
pub(super) use volume::{serves, volume};

/// A snapshot.
pub(super) fn snapshot(state: &State, snapshot: &Snapshot) -> rpc::Snapshot {
    record::snapshot_view(state, snapshot)
}

/// An event.
pub(super) fn event(number: u64, event: &Event) -> rpc::Event {
    record::event_to(number, event)
}

/// A moment as people read it: `2026-01-31 12:00:05 UTC`.
pub(super) fn moment(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1000 % 86_400);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a day counted from 1970-01-01. Years are taken to begin in March, so that
/// the leap day is the last of a year; an era is 400 years.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn moments_read_as_the_calendar_says() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_767_225_599_999), "2025-12-31 23:59:59 UTC");
        assert_eq!(moment(4_107_542_400_000), "2100-03-01 00:00:00 UTC");
    }
}
