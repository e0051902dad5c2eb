//! `stats_config` of the bootstrap: which statistics there are, and which parts of their names are tags.
//!
//! Applied when statistics are asked for, so counting costs the same with any configuration.
//! Source: `envoy.config.metrics.v3.StatsConfig`.

use meltemi_compile::Rejection;
use meltemi_compile::matcher::StringMatcher;
use meltemi_envoy::config::metrics::v3 as proto;
use meltemi_envoy::config::metrics::v3::stats_matcher::StatsMatcher as Kind;
use meltemi_envoy::config::metrics::v3::tag_specifier::TagValue;
use regex::Regex;

use super::sample::Sample;

/// See the module.
#[derive(Debug, Default)]
pub struct StatsConfig {
    matcher: Matcher,
    tags: Vec<Tag>,
    /// `use_all_default_tags: false`: of the default tags, only those that are named.
    only_named: bool,
}

#[derive(Debug, Default)]
enum Matcher {
    #[default]
    All,
    None,
    Including(Vec<StringMatcher>),
    Excluding(Vec<StringMatcher>),
}

#[derive(Debug)]
struct Tag {
    /// As Prometheus writes it.
    label: String,
    value: Source,
}

#[derive(Debug)]
enum Source {
    /// The expression of a default tag of this name.
    Default,
    Fixed(String),
    /// The first group goes from the name; the second, or else the first, is the value.
    Regex(Regex),
}

impl StatsConfig {
    /// Reads the message.
    ///
    /// # Errors
    /// All fields that are invalid or not supported.
    pub fn new(message: &proto::StatsConfig) -> Result<StatsConfig, Vec<Rejection>> {
        let proto::StatsConfig {
            stats_tags,
            use_all_default_tags,
            stats_matcher,
            histogram_bucket_settings,
            allow_default_tag_overrides,
        } = message;
        let mut refused = Vec::new();
        let mut refuse =
            |path: String, reason: String| refused.push(Rejection::new("bootstrap", path, reason));
        if !histogram_bucket_settings.is_empty() {
            refuse("stats_config.histogram_bucket_settings".into(), "not supported yet".into());
        }
        if *allow_default_tag_overrides == Some(true) {
            refuse("stats_config.allow_default_tag_overrides".into(), "not supported yet".into());
        }
        let mut tags = Vec::new();
        for (index, tag) in stats_tags.iter().enumerate() {
            match Tag::new(tag) {
                Ok(tag) => tags.push(tag),
                Err(reason) => refuse(format!("stats_config.stats_tags[{index}].regex"), reason),
            }
        }
        let matcher = matcher(stats_matcher.as_ref()).unwrap_or_else(|rejections| {
            for Rejection { path, reason, .. } in rejections {
                refuse(format!("stats_config.stats_matcher.{path}"), reason);
            }
            Matcher::All
        });
        let config = StatsConfig { matcher, tags, only_named: *use_all_default_tags == Some(false) };
        if refused.is_empty() { Ok(config) } else { Err(refused) }
    }

    /// Whether there is a statistic of this name.
    pub fn allows(&self, name: &str) -> bool {
        let any = |patterns: &[StringMatcher]| patterns.iter().any(|p| p.matches(name.as_bytes()));
        match &self.matcher {
            Matcher::All => true,
            Matcher::None => false,
            Matcher::Including(patterns) => any(patterns),
            Matcher::Excluding(patterns) => !any(patterns),
        }
    }

    /// Takes the configured tags out of the name for Prometheus.
    pub fn tag(&self, sample: &mut Sample) {
        if self.only_named {
            let named = |label: &str| {
                self.tags.iter().any(|tag| tag.label == label && matches!(tag.value, Source::Default))
            };
            if !sample.labels.iter().all(|(label, _)| named(label)) {
                sample.labels.clear();
                sample.metric.clone_from(&sample.name);
            }
        }
        for tag in &self.tags {
            match &tag.value {
                Source::Default => {}
                Source::Fixed(value) => sample.labels.push((tag.label.clone().into(), value.clone())),
                Source::Regex(regex) => tag.extract(regex, sample),
            }
        }
    }
}

fn matcher(message: Option<&proto::StatsMatcher>) -> Result<Matcher, Vec<Rejection>> {
    let compile = |list: &meltemi_envoy::r#type::matcher::v3::ListStringMatcher| {
        list.patterns.iter().map(meltemi_compile::string_matcher).collect::<Result<Vec<_>, _>>()
    };
    Ok(match message.and_then(|message| message.stats_matcher.as_ref()) {
        None | Some(Kind::RejectAll(false)) => Matcher::All,
        Some(Kind::RejectAll(true)) => Matcher::None,
        Some(Kind::InclusionList(list)) => Matcher::Including(compile(list)?),
        Some(Kind::ExclusionList(list)) => Matcher::Excluding(compile(list)?),
    })
}

impl Tag {
    fn new(message: &proto::TagSpecifier) -> Result<Tag, String> {
        let proto::TagSpecifier { tag_name, tag_value } = message;
        let value = match tag_value {
            None => Source::Default,
            Some(TagValue::Regex(text)) if text.is_empty() => Source::Default,
            Some(TagValue::FixedValue(value)) => Source::Fixed(value.clone()),
            Some(TagValue::Regex(text)) => {
                // The one assertion that Istio writes: a point follows. A word ends there too.
                let text = text.replace(r"(?=\.)", r"\b");
                let regex = Regex::new(&text).map_err(|error| error.to_string())?;
                if regex.captures_len() < 2 {
                    return Err("has no group".to_owned());
                }
                Source::Regex(regex)
            }
        };
        Ok(Tag { label: tag_name.replace(['.', '-'], "_"), value })
    }

    fn extract(&self, regex: &Regex, sample: &mut Sample) {
        let name = if sample.labels.is_empty() { &sample.metric } else { &sample.name };
        let Some(found) = regex.captures(name) else { return };
        let Some(removed) = found.get(1) else { return };
        let value = found.get(2).unwrap_or(removed).as_str().to_owned();
        let rest = format!("{}{}", &name[..removed.start()], &name[removed.end()..]);
        sample.metric = rest;
        sample.labels.push((self.label.clone().into(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Value;
    use super::*;

    fn config(yaml: &str) -> StatsConfig {
        let message = meltemi_envoy::json::Codec::new().parse(yaml).expect("YAML");
        StatsConfig::new(&message).expect("taken")
    }

    #[test]
    fn lists_say_what_there_is() {
        let istio =
            config("{stats_matcher: {inclusion_list: {patterns: [{prefix: server}, {suffix: cx_active}]}}}");
        assert!(istio.allows("server.state") && istio.allows("http.x.downstream_cx_active"));
        assert!(!istio.allows("cluster.a.upstream_rq_total"));
        assert!(!config("{stats_matcher: {reject_all: true}}").allows("server.state"));
    }

    #[test]
    fn tags_of_istio_leave_the_name() {
        let config = config(
            r#"{use_all_default_tags: false, stats_tags: [
                {tag_name: cluster_name, regex: "^cluster\\.((.+?(\\..+?\\.svc\\.cluster\\.local)?)\\.)"},
                {tag_name: http_conn_manager_listener_prefix, regex: "^listener(?=\\.).*?\\.http\\.((.*?)\\.)"},
                {tag_name: mesh, fixed_value: one}]}"#,
        );
        let mut sample =
            Sample::plain("cluster.outbound|80||a.b.svc.cluster.local.upstream_rq_total", Value::Counter(1));
        sample.metric.clone_from(&sample.name);
        config.tag(&mut sample);
        assert_eq!(sample.metric, "cluster.upstream_rq_total");
        let labels: Vec<_> = sample.labels.iter().map(|(label, value)| (&**label, &**value)).collect();
        assert_eq!(labels, [("cluster_name", "outbound|80||a.b.svc.cluster.local"), ("mesh", "one")]);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let message = meltemi_envoy::json::Codec::new()
            .parse("{histogram_bucket_settings: [{}], stats_tags: [{tag_name: a, regex: '(?<=x)(y)'}]}")
            .expect("YAML");
        let refused = StatsConfig::new(&message).expect_err("refused");
        let paths: Vec<_> = refused.iter().map(|rejection| &*rejection.path).collect();
        assert_eq!(paths, ["stats_config.histogram_bucket_settings", "stats_config.stats_tags[0].regex"]);
    }
}
