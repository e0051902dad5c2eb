//! URI templates: paths with variables, matched and rewritten.
//!
//! Source: `envoy.extensions.path.match.uri_template.v3` and `envoy.extensions.path.rewrite.uri_template.v3`. A
//! template is a list of segments: literal text, `*` for one segment, `**` for any rest, or a variable
//! `{name}` / `{name=segments}`; literal text may follow the last of them. It becomes a regex for the whole path.

use regex::Regex;

/// The most variables of a template.
const MAX_VARIABLES: usize = 5;
/// The longest name of a variable.
const MAX_NAME_BYTES: usize = 16;
/// Characters of a path segment but `*` and `/`, as a class of a regex.
const SEGMENT: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@=";

/// A template, compiled.
#[derive(Debug, Clone)]
pub struct UriTemplate {
    regex: Regex,
    names: Vec<Box<str>>,
}

/// A new path with variables of a template.
#[derive(Debug, Clone)]
pub struct UriRewrite(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    Literal(Box<str>),
    /// The group of the template's regex.
    Variable(usize),
}

impl UriTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<UriTemplate, &'static str> {
        if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a template must begin with / and hold only printable characters");
        }
        let mut parser = Parser { rest: &text[1..], ..Parser::default() };
        parser.regex.push('/');
        parser.template()?;
        let regex = format!(r"\A(?:{})\z", parser.regex);
        let regex = Regex::new(&regex).map_err(|_| "not a template")?;
        Ok(UriTemplate { regex, names: parser.names })
    }

    /// Whether a path, without its query, matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// The rewritten path; `None` when the path does not match.
    pub(crate) fn rewrite(&self, path: &str, rewrite: &UriRewrite) -> Option<String> {
        let captures = self.regex.captures(path)?;
        let mut new = String::with_capacity(path.len());
        for piece in &rewrite.0 {
            match piece {
                Piece::Literal(text) => new.push_str(text),
                Piece::Variable(group) => new.push_str(captures.get(*group).map_or("", |m| m.as_str())),
            }
        }
        Some(new)
    }
}

impl UriRewrite {
    /// Reads a `path_template_rewrite` for paths that match `template`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str, template: &UriTemplate) -> Result<UriRewrite, &'static str> {
        if !text.starts_with('/') || text.contains("//") {
            return Err("a rewrite must begin with / and hold no //");
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, variable) = rest.split_once('{').unwrap_or((rest, ""));
            if !literal.bytes().all(|byte| byte == b'/' || is_segment_byte(byte)) {
                return Err("a character that a path must not have");
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            if literal.len() == rest.len() {
                break;
            }
            let (name, after) = variable.split_once('}').ok_or("a { without its }")?;
            let number = template.names.iter().position(|known| **known == *name);
            pieces.push(Piece::Variable(number.ok_or("a variable that the template does not have")? + 1));
            rest = after;
        }
        Ok(UriRewrite(pieces))
    }
}

/// A template while it is read.
#[derive(Default)]
struct Parser<'t> {
    rest: &'t str,
    regex: String,
    names: Vec<Box<str>>,
    /// `**` was there, so no glob may follow.
    has_rest: bool,
}

impl Parser<'_> {
    fn template(&mut self) -> Result<(), &'static str> {
        while !self.rest.is_empty() {
            match self.rest.starts_with('{') {
                true => self.variable()?,
                false => self.segment()?,
            }
            if !self.slash() && !self.rest.is_empty() {
                self.literal()?;
                return if self.rest.is_empty() { Ok(()) } else { Err("text behind a glob must end it") };
            }
        }
        Ok(())
    }

    /// `{name}` or `{name=segments}`.
    fn variable(&mut self) -> Result<(), &'static str> {
        let (inner, after) = self.rest[1..].split_once('}').ok_or("a { without its }")?;
        let (name, segments) = inner.split_once('=').unwrap_or((inner, "*"));
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name.len() > MAX_NAME_BYTES {
            return Err("the name of a variable must be a letter and up to 15 letters, digits or _");
        }
        if self.names.iter().any(|known| **known == *name) || self.names.len() == MAX_VARIABLES {
            return Err("more than 5 variables, or two of one name");
        }
        self.names.push(name.into());
        self.regex.push('(');
        self.rest = segments;
        loop {
            self.segment()?;
            if self.rest.is_empty() {
                break;
            }
            if !self.slash() {
                return Err("a glob in a variable must be a whole segment");
            }
        }
        self.regex.push(')');
        self.rest = after;
        Ok(())
    }

    fn slash(&mut self) -> bool {
        let Some(rest) = self.rest.strip_prefix('/') else { return false };
        self.regex.push('/');
        self.rest = rest;
        true
    }

    /// A glob or literal text.
    fn segment(&mut self) -> Result<(), &'static str> {
        if let Some(rest) = self.rest.strip_prefix("**") {
            self.rest = rest;
            self.glob(&format!("[{SEGMENT}/]*"))?;
            self.has_rest = true;
            Ok(())
        } else if let Some(rest) = self.rest.strip_prefix('*') {
            self.rest = rest;
            self.glob(&format!("[{SEGMENT}]+"))
        } else {
            self.literal()
        }
    }

    fn glob(&mut self, regex: &str) -> Result<(), &'static str> {
        if self.has_rest {
            return Err("no glob or variable may follow **");
        }
        self.regex.push_str(regex);
        Ok(())
    }

    fn literal(&mut self) -> Result<(), &'static str> {
        let end = self.rest.find('/').unwrap_or(self.rest.len());
        let text = &self.rest[..end];
        if text.is_empty() || !text.bytes().all(is_segment_byte) {
            return Err("a character that a path segment must not have, or an empty segment");
        }
        self.regex.push_str(&regex::escape(text));
        self.rest = &self.rest[end..];
        Ok(())
    }
}

fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        UriTemplate::parse(template).unwrap().matches(path)
    }

    fn rewritten(template: &str, rewrite: &str, path: &str) -> Option<String> {
        let template = UriTemplate::parse(template).unwrap();
        template.rewrite(path, &UriRewrite::parse(rewrite, &template).unwrap())
    }

    #[test]
    fn a_star_is_a_segment_and_two_are_any_rest() {
        assert!(matches("/api/*/v1", "/api/x/v1"));
        assert!(!matches("/api/*/v1", "/api/x/y/v1"));
        assert!(!matches("/api/*/v1", "/api//v1"));
        assert!(matches("/a/**", "/a/"));
        assert!(matches("/a/**", "/a/b/c"));
        assert!(!matches("/a/**", "/a"));
        assert!(matches("/v/*.m3u8", "/v/1.m3u8"));
        assert!(!matches("/v/*.m3u8", "/v/1xm3u8"));
        assert!(matches("/a/", "/a/"));
        assert!(matches("/", "/"));
    }

    #[test]
    fn variables_are_put_where_the_rewrite_names_them() {
        let rewritten = |template, rewrite, path| rewritten(template, rewrite, path).unwrap();
        assert_eq!(rewritten("/{lang}/{country}", "/{country}/{lang}", "/en/us"), "/us/en");
        assert_eq!(rewritten("/x/{rest=a/**}", "/{rest}", "/x/a/b/c"), "/a/b/c");
        assert_eq!(rewritten("/{n}.jpg", "/i-{n}.png", "/7.jpg"), "/i-7.png");
        assert_eq!(super::tests::rewritten("/{a}", "/{a}", "/x/y"), None);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for bad in [
            "a",
            "/a b",
            "/**/*",
            "/**/{a}",
            "/a//b",
            "/{a",
            "/{a}/{a}",
            "/{1}",
            "/{a=}",
            "/{a=*b}",
            "/*b/c",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
            "/{abcdefghijklmnopq}",
            "/a*b",
        ] {
            assert!(UriTemplate::parse(bad).is_err(), "{bad}");
        }
        let template = UriTemplate::parse("/{a}").unwrap();
        for bad in ["{a}", "/{b}", "/{a", "//{a}", "/*"] {
            assert!(UriRewrite::parse(bad, &template).is_err(), "{bad}");
        }
    }
}
