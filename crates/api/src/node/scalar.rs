//! What a scalar is: null, boolean, number or string. Follows `kubectl` (sigs.k8s.io/yaml, YAML 1.1), which takes
//! `yes`, `no`, `on` and `off` for booleans and a leading zero for octal, so that a file accepted here is accepted
//! there. Leaves out dates, which Kubernetes keeps as strings.

use super::Value;

/// Resolves an unquoted scalar.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if let Some(value) = integer(text) {
        return Value::Int(value);
    }
    match float(text) {
        Some(value) => Value::Float(value),
        None => Value::String,
    }
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` takes a sign of its own, which would make `--1` a number.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

fn float(text: &str) -> Option<f64> {
    match text.trim_start_matches(['+', '-']) {
        ".inf" | ".Inf" | ".INF" => {
            return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads `inf` and `nan`, which are strings in YAML.
    let shaped = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let starts = text.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if shaped && starts { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_resolve_as_in_kubectl() {
        let text_of = |text: &str| format!("{:?}", resolve(text));
        let table = [
            ("", "Null"),
            ("~", "Null"),
            ("on", "Bool(true)"),
            ("No", "Bool(false)"),
            ("80", "Int(80)"),
            ("-1", "Int(-1)"),
            ("0644", "Int(420)"),
            ("0x50", "Int(80)"),
            ("1.10", "Float(1.1)"),
            ("1e3", "Float(1000.0)"),
            ("08", "Float(8.0)"),
            (".inf", "Float(inf)"),
            ("inf", "String"),
            ("--1", "String"),
            ("1.2.3", "String"),
            ("10s", "String"),
            ("v1", "String"),
            ("2026-01-01", "String"),
            ("-", "String"),
            (".", "String"),
        ];
        for (text, expected) in table {
            assert_eq!(text_of(text), expected, "{text}");
        }
    }
}
