//! Rules of `exportTo`. Source: Istio `validateExportTo`.

use std::collections::BTreeMap;

use crate::codes;
use crate::decode::Decoder;

/// Everybody, the own namespace, and nobody.
const ALL: &str = "*";
const OWN: &str = ".";
const NOBODY: &str = "~";

/// Whether nobody at all may be meant: of a ServiceEntry its own proxies are left.
pub(crate) fn export_to(list: &[String], may_be_nobody: bool, decoder: &mut Decoder) {
    let own = decoder.object.as_ref().map_or_else(String::new, |id| id.namespace.to_string());
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, name) in list.iter().enumerate() {
        let meant = if name == OWN { own.as_str() } else { name.as_str() };
        if let Some(earlier) = first.get(meant) {
            let message = format!("`{name}` is already said by exportTo[{earlier}]");
            decoder.report_below(&format!("exportTo[{index}]"), &codes::DUPLICATE_NAME, message, "remove it");
            continue;
        }
        first.insert(meant, index);
        if name == NOBODY && !may_be_nobody {
            let message = "an object that nobody sees has no effect".to_owned();
            decoder.report_below(
                &format!("exportTo[{index}]"),
                &codes::BAD_NAME,
                message,
                "write `.` or `*`",
            );
        }
    }
    for special in [ALL, NOBODY] {
        if let Some(index) = list.iter().position(|name| name == special).filter(|_| list.len() > 1) {
            let message = format!("`{special}` leaves nothing for the other entries to say");
            let field = format!("exportTo[{index}]");
            decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, "keep one of them");
        }
    }
}
