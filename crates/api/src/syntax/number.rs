//! Ranges of numbers. The text is canonical: the decoder has made sure that it is a number.

use super::{Flaw, Verdict};
use crate::codes;

/// Accepts whole numbers from `low` to `high`.
fn within(text: &str, low: i64, high: i64, what: &str) -> Verdict {
    match text.parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(()),
        _ if high == i64::MAX => {
            Err(Flaw::new(&codes::OUT_OF_RANGE, format!("{what} must be at least {low}, and {text} is not")))
        }
        _ => Err(Flaw::new(
            &codes::OUT_OF_RANGE,
            format!("{what} must be between {low} and {high}, and {text} is not"),
        )),
    }
}

/// A TCP or UDP port.
pub(crate) fn port(text: &str) -> Verdict {
    within(text, 1, 65535, "a port")
}

/// A port number, or zero for what has none.
pub(crate) fn port_or_zero(text: &str) -> Verdict {
    within(text, 0, 65535, "a port")
}

/// A share of something, relative to the others.
pub(crate) fn weight(text: &str) -> Verdict {
    within(text, 0, i64::from(i32::MAX), "a weight")
}

/// A count that may be zero.
pub(crate) fn not_negative(text: &str) -> Verdict {
    within(text, 0, i64::MAX, "the number")
}

/// A count that may not be zero.
pub(crate) fn at_least_one(text: &str) -> Verdict {
    within(text, 1, i64::MAX, "the number")
}

/// A percentage without fraction.
pub(crate) fn whole_percent(text: &str) -> Verdict {
    within(text, 0, 100, "a percentage")
}

/// A percentage.
pub(crate) fn percent(text: &str) -> Verdict {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(()),
        _ => Err(Flaw::new(
            &codes::OUT_OF_RANGE,
            format!("a percentage must be between 0 and 100, and {text} is not"),
        )),
    }
}

/// The status code of a direct response; Envoy takes no informational ones.
pub(crate) fn response_status(text: &str) -> Verdict {
    within(text, 200, 599, "the status code of a response")
}

/// The status code of a redirect, one of those Envoy can send.
pub(crate) fn redirect_code(text: &str) -> Verdict {
    match text {
        "301" | "302" | "303" | "307" | "308" => Ok(()),
        _ => Err(Flaw::new(&codes::OUT_OF_RANGE, format!("{text} is not the status code of a redirect"))
            .help("use 301, 302, 303, 307 or 308")),
    }
}

/// A number above zero.
pub(crate) fn positive(text: &str) -> Verdict {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok(()),
        _ => Err(Flaw::new(&codes::OUT_OF_RANGE, format!("the number must be above 0, and {text} is not"))),
    }
}

/// The largest ring that Envoy makes.
const MAX_RING_SIZE: i64 = 8 << 20;

/// Entries of a ring of hashes; 0 leaves it to the proxy.
pub(crate) fn ring_size(text: &str) -> Verdict {
    within(text, 0, MAX_RING_SIZE, "the size of a ring")
}

/// Envoy takes smaller tables only.
const MAX_MAGLEV_SIZE: i64 = 5_000_010;

/// Size of a table of Maglev: a prime, without which it would not be filled evenly.
pub(crate) fn maglev_size(text: &str) -> Verdict {
    within(text, 1, MAX_MAGLEV_SIZE, "the size of a table")?;
    let size = text.parse::<i64>().unwrap_or_default();
    let divides = |factor: &i64| size % factor == 0;
    let has_divisor = (2..size).take_while(|factor| factor * factor <= size).any(|factor| divides(&factor));
    if !has_divisor {
        return Ok(());
    }
    let flaw =
        Flaw::new(&codes::OUT_OF_RANGE, format!("the size of a table must be a prime, and {text} is not"));
    Err(flaw.help("65537 is one"))
}

/// The percentage of a locality.
pub(crate) fn locality_weight(text: &str) -> Verdict {
    within(text, 1, 100, "the weight of a locality")
}
