//! Rules of a CORS policy.

use super::text_match;
use crate::codes;
use crate::decode::Decoder;
use crate::istio::CorsPolicy;

pub(crate) fn cors_policy(policy: &CorsPolicy, decoder: &mut Decoder) {
    for (index, origin) in policy.allow_origins.iter().enumerate() {
        let field = format!("allowOrigins[{index}]");
        text_match::says_something(decoder, &field, origin);
        text_match::is_expression(decoder, &field, origin);
    }
    if !policy.allow_origin.is_empty() && !policy.allow_origins.is_empty() {
        let message = "`allowOrigins` counts, so nothing looks at `allowOrigin`".to_owned();
        decoder.report_below("allowOrigin", &codes::NO_USE, message, "remove it");
    }
}
