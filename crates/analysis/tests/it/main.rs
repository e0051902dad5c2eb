//! The analysis at its boundary: YAML in, findings out.

mod cases;
mod docs;
