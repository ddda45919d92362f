//! The civil (proleptic Gregorian) calendar in plain integers.

use serde::{Deserialize, Serialize};

/// A date and time of day, no time zone.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CivilTime {
    /// Four-digit year.
    pub year: u16,
    /// 1–12.
    pub month: u8,
    /// 1–31.
    pub day: u8,
    /// 0–23.
    pub hour: u8,
    /// 0–59.
    pub minute: u8,
    /// 0–59.
    pub second: u8,
}

impl CivilTime {
    /// Midnight at the start of a day.
    pub const fn midnight(year: u16, month: u8, day: u8) -> CivilTime {
        CivilTime { year, month, day, hour: 0, minute: 0, second: 0 }
    }
    /// Whether there is such a day and time.
    pub fn is_valid(self) -> bool {
        (1..=12).contains(&self.month)
            && (1..=days_in_month(self.year.into(), self.month.into())).contains(&self.day.into())
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
    }
    /// 1 = Sunday … 7 = Saturday.
    pub fn weekday(self) -> u8 {
        // Day 0 (1970-01-01) was a Thursday.
        (days_from_civil(self.year.into(), self.month.into(), self.day.into()) + 4).rem_euclid(7) as u8 + 1
    }
}

impl Default for CivilTime {
    fn default() -> Self {
        CivilTime::midnight(2026, 1, 1)
    }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years begin in March here, so that the leap day is the last of its year.
pub(super) fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day number.
pub(super) fn civil_from_days(days: i64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year.max(0) as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_six_centuries() {
        let mut days = days_from_civil(1800, 1, 1);
        for year in 1800..2400 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_from_civil(year, month, day), days);
                    assert_eq!(civil_from_days(days), (year, month, day));
                    days += 1;
                }
            }
        }
        assert_eq!(days_from_civil(1970, 1, 1), 0);
    }

    #[test]
    fn weekdays_and_validity() {
        assert_eq!(CivilTime::midnight(2026, 1, 1).weekday(), 5);
        assert_eq!(CivilTime::midnight(2000, 2, 29).weekday(), 3);
        for (year, month, day, valid) in
            [(2024, 2, 29, true), (2026, 2, 29, false), (1900, 2, 29, false), (2026, 13, 1, false), (2026, 1, 0, false)]
        {
            assert_eq!(CivilTime::midnight(year, month, day).is_valid(), valid, "{year}-{month}-{day}");
        }
    }
}
