//! Durations and points in time. Durations are Go's (`time.ParseDuration`), as in Istio's YAML.

use std::time::Duration;

use super::{Flaw, Verdict};
use crate::codes;

/// Nanoseconds of each unit.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Longest duration that protobuf can carry: 10,000 years.
const LONGEST: f64 = 315_576_000_000.0;

/// Reads `1h30m`, `1.5s`, `300ms`, `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Flaw> {
    let flaw = || {
        let flaw = Flaw::new(&codes::BAD_DURATION, format!("`{text}` is not a duration"));
        match text.parse::<f64>() {
            Ok(_) => flaw.help(format!("add a unit: `{text}s`")),
            Err(_) => flaw.help("write a number and a unit: `300ms`, `1.5s`, `2m`, `1h30m`"),
        }
    };
    if text.starts_with('-') {
        return Err(Flaw::new(&codes::BAD_DURATION, format!("the duration `{text}` is negative")));
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (part, after) = term(rest).ok_or_else(flaw)?;
        total = total.checked_add(part).ok_or_else(flaw)?;
        rest = after;
    }
    if text.is_empty() || total.as_secs_f64() > LONGEST { Err(flaw()) } else { Ok(total) }
}

/// One number with its unit, and what follows.
fn term(text: &str) -> Option<(Duration, &str)> {
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(number);
    let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let nanos_whole = u128::from(whole).checked_mul(u128::from(*nanos))?;
    let nanos_fraction = if fraction.is_empty() { 0 } else { fraction_of(fraction, *nanos)? };
    let total = nanos_whole.checked_add(nanos_fraction)?;
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    let below = u32::try_from(total % 1_000_000_000).ok()?;
    Some((Duration::new(seconds, below), rest))
}

/// Decimal places beyond which a fraction no longer changes a nanosecond of an hour.
const PLACES: usize = 18;

/// `0.fraction` of a unit, in nanoseconds, rounded down.
fn fraction_of(fraction: &str, unit: u64) -> Option<u128> {
    let digits = &fraction[..fraction.len().min(PLACES)];
    let scale = 10u128.pow(u32::try_from(digits.len()).ok()?);
    Some(digits.parse::<u128>().ok()? * u128::from(unit) / scale)
}

/// A duration of at least a millisecond, the finest Istio takes.
pub(crate) fn duration(text: &str) -> Verdict {
    match parse_duration(text)? {
        found if found < Duration::from_millis(1) => Err(Flaw::new(
            &codes::BAD_DURATION,
            format!("`{text}` is shorter than 1ms, the shortest duration here"),
        )),
        _ => Ok(()),
    }
}

/// A duration of at least a millisecond, or zero for "none".
pub(crate) fn duration_or_zero(text: &str) -> Verdict {
    if parse_duration(text)?.is_zero() { Ok(()) } else { duration(text) }
}

/// A duration of whole seconds.
pub(crate) fn whole_seconds(text: &str) -> Verdict {
    match parse_duration(text)?.subsec_nanos() {
        0 => Ok(()),
        _ => Err(Flaw::new(&codes::BAD_DURATION, format!("`{text}` is not a number of whole seconds"))),
    }
}

/// Seconds since the Unix epoch of an RFC 3339 time.
pub(crate) fn unix_seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// An RFC 3339 time.
pub(crate) fn timestamp(text: &str) -> Verdict {
    let flaw = || {
        Flaw::new(&codes::WRONG_TYPE, format!("`{text}` is not a time")).help("write `2026-01-31T12:00:00Z`")
    };
    unix_seconds(text).map(|_| ()).ok_or_else(flaw)
}
