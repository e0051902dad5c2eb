//! Claims of a token, spelt as the name of a header: `@request.auth.claims.group.id` or
//! `@request.auth.claims[group][id]`. Source: Istio `pkg/jwt/routing.go`.

/// What such names begin with, in any case.
const PREFIX: &str = "@request.auth.claims";

/// The claim that the name of a header stands for, with several names one within the other; `None` for a header.
pub fn claim_of_header(name: &str) -> Option<Vec<String>> {
    let is_claim = name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let rest = name.get(PREFIX.len()..).filter(|_| is_claim)?;
    let names: Vec<&str> = match rest.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    let is_empty = names.iter().all(|name| name.is_empty()) && names.len() == 1;
    (!is_empty).then(|| names.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::claim_of_header;

    #[test]
    fn dots_or_brackets() {
        let claim = |name| claim_of_header(name).map(|names| names.join("/"));
        assert_eq!(claim("@request.auth.claims.group").as_deref(), Some("group"));
        assert_eq!(claim("@Request.Auth.Claims.group.id").as_deref(), Some("group/id"));
        assert_eq!(claim("@request.auth.claims[my.org][id]").as_deref(), Some("my.org/id"));
        for header in ["@request.auth.claims", "@request.auth.claims[]", "@request.auth.claims.", "x-user"] {
            assert_eq!(claim(header), None, "{header}");
        }
    }
}
