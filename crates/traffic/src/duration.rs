//! Durations as people write them: `200ms`, `1.5s`, `2m`, `1h`; a bare number is seconds.

use std::time::Duration;

/// Longest duration taken: a day. Anything longer is a slip of the pen.
const MAX: Duration = Duration::from_secs(24 * 3600);

/// Parses a duration.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}; use us, ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration, such as 200ms or 10s"))?;
    let duration =
        Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|error| error.to_string())?;
    if duration > MAX { Err("longer than a day".into()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_slips_are_errors() {
        assert_eq!(parse("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["", "s", "1 s", "1d", "-1s", "1.2.3s", "25h"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
