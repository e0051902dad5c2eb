//! Lines of secrets for people. Leaves out what they say.

use std::fmt::Write as _;

use comfy_table::{Cell, Color, Table, presets};

use super::certificates::{Row, Status};

const HEADER: [&str; 10] = [
    "RESOURCE NAME",
    "TYPE",
    "STATUS",
    "VALID CERT",
    "SERIAL NUMBER",
    "NOT AFTER",
    "NOT BEFORE",
    "SAN",
    "TRUST DOMAIN",
    "TRUSTED BY",
];

/// The table, and below it what is wrong.
pub(super) fn text(from: &str, rows: &[Row], has_color: bool) -> String {
    if rows.is_empty() {
        return format!("{from} has no secrets: it has no certificate of its own and trusts nobody's\n");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if has_color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(HEADER);
    for row in rows {
        table.add_row(cells(row));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    for row in rows {
        let Some(reason) = &row.reason else { continue };
        // Writing to a string cannot fail.
        let _ok = write!(text, "\n{} ({}): {reason}", row.name, row.kind);
    }
    if rows.iter().any(|row| row.reason.is_some()) {
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [Cell; HEADER.len()] {
    let or_dash = |text: Option<&str>| Cell::new(text.filter(|text| !text.is_empty()).unwrap_or("-"));
    let status = match row.status {
        Status::Active => Cell::new("ACTIVE"),
        Status::Warming => Cell::new("WARMING").fg(Color::Yellow),
    };
    let valid = match row.valid {
        Some(true) => Cell::new("true").fg(Color::Green),
        Some(false) => Cell::new("false").fg(Color::Red),
        None => Cell::new("-"),
    };
    [
        Cell::new(&row.name),
        Cell::new(row.kind),
        status,
        valid,
        or_dash(row.serial_number.as_deref()),
        or_dash(row.not_after.as_deref()),
        or_dash(row.not_before.as_deref()),
        or_dash(Some(&row.san.join(","))),
        or_dash(row.trust_domain.as_deref()),
        or_dash(Some(&row.trusted_by.join(","))),
    ]
}
