//! Each thing is said once, and taken back once.

use meltemi_api::{Severity, codes};

use super::*;

fn findings(messages: &[&str]) -> Report {
    let code = codes::ALL.first().expect("there are codes");
    let diagnostics = messages.iter().map(|message| Diagnostic::new(code, *message)).collect();
    Report::Findings(Arc::new(Findings { diagnostics, ..Default::default() }))
}

#[test]
fn a_finding_is_said_once_and_its_end_once() {
    let mut ledger = Ledger::new(false);
    assert!(ledger.text(&findings(&["first", "second"])).contains("first"));
    assert_eq!(ledger.text(&findings(&["first", "second"])), "");
    let text = ledger.text(&findings(&["second", "third"]));
    assert!(text.contains("third") && !text.contains("second"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("resolved: ") && l.ends_with("first")), "{text}");
    assert_eq!(ledger.text(&findings(&[])).matches("resolved: ").count(), 2);
}

#[test]
fn thousands_of_findings_are_counted_and_the_worst_are_shown() {
    let code =
        |severity| codes::ALL.iter().find(|code| code.severity == severity).expect("one of each severity");
    let many = (0..MAX_SHOWN + 7).map(|n| Diagnostic::new(code(Severity::Warning), format!("minor {n}.")));
    let diagnostics = many.chain([Diagnostic::new(code(Severity::Error), "major")]).collect();
    let mut ledger = Ledger::new(false);
    let text = ledger.text(&Report::Findings(Arc::new(Findings { diagnostics, ..Default::default() })));
    assert!(text.starts_with("error[") && text.contains("major"), "{text}");
    assert_eq!(text.matches("minor").count(), MAX_SHOWN - 1);
    assert!(text.contains("and: 8 more findings"), "{text}");
    let text = ledger.text(&findings(&[]));
    assert_eq!(text.matches("resolved: ").count(), MAX_SHOWN);
    assert!(text.ends_with("and: 8 more findings are resolved\n"), "{text}");
}

#[test]
fn a_refusal_is_said_once_until_the_proxy_takes_an_update() {
    let mut ledger = Ledger::new(false);
    let refused = |reason: &str| Report::Rejected {
        node: "n".into(),
        type_url: meltemi_envoy::type_url::ROUTE.into(),
        generation: "meltemi/2".into(),
        reason: reason.into(),
        blamed: Vec::new(),
    };
    let accepted = Report::Accepted { node: "n".into(), type_url: meltemi_envoy::type_url::ROUTE.into() };
    assert_eq!(ledger.text(&accepted), "");
    assert_eq!(ledger.text(&refused("bad")), "refused: n refuses RDS of generation meltemi/2: bad\n");
    assert_eq!(ledger.text(&refused("bad")), "");
    assert!(ledger.text(&refused("worse")).contains("worse"));
    assert_eq!(ledger.text(&accepted), "resolved: n takes RDS again\n");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let metrics = Arc::new(Metrics::new());
    let (queue, _reports) = sync_channel(1);
    let reports = Reports { queue, metrics: Arc::clone(&metrics) };
    reports.tell(findings(&[]));
    reports.tell(findings(&[]));
    let text = metrics.text(&BTreeMap::new());
    assert!(text.contains("meltemi_reports_dropped_total 1"), "{text}");
}
