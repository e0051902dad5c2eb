//! `meltemi proxy-config secret` and `meltemi cert inspect` as people run them: of our proxy and of a stock Envoy, of a
//! file, of what does not answer; by what they print and by their exit codes.

use super::*;

/// What a command says, and its exit code.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(peers::meltemi())
        .args(arguments)
        .env_remove("MELTEMI_STATE_DIR")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A proxy whose certificates come from the agent, with an admin interface.
async fn check(binary: &str, arguments: &[&str]) {
    let authority = Authority::start("1h").await;
    let port = || SocketAddr::from(([127, 0, 0, 1], free_port().expect("a port")));
    let (listener, admin) = (port(), port());
    let bootstrap = authority.path("bootstrap.yaml");
    let address = format!("{{address: {}, port_value: {}}}", admin.ip(), admin.port());
    let text = envoy_bootstrap(listener, &authority.sds());
    std::fs::write(&bootstrap, format!("{text}admin: {{address: {{socket_address: {address}}}}}\n"))
        .expect("writable");
    let words = std::iter::once(binary).chain(arguments.iter().copied()).map(str::to_owned);
    let command = words
        .chain(["-c".to_owned(), bootstrap.display().to_string()])
        .chain(["--disable-hot-restart", "--concurrency", "1", "--base-id", "78"].map(str::to_owned));
    let agent = authority.agent(&command.collect::<Vec<_>>());
    let admin = admin.to_string();
    let all = until("both secrets", DEADLINE, async || {
        let (code, text) = run(&["proxy-config", "secret", "--admin", &admin]);
        (code == Some(0) && text.contains("ROOTCA")).then_some(text)
    });
    let text = all.await.unwrap_or_else(|error| panic!("{error:#}: {}", agent.output()));
    let line =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    for part in ["Cert Chain", "ACTIVE", "true", ID, "cluster.local", "ROOTCA"] {
        assert!(line(" default").contains(part), "{part} is not in\n{text}");
    }
    assert!(line(" ROOTCA").contains("CA ") && !text.contains('\x1b'), "{text}");

    let (code, json) = run(&["pc", "secret", "--admin", &admin, "-o", "json"]);
    let told: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(code, Some(0));
    let active = told["dynamicActiveSecrets"].as_array().expect("a list");
    let own = active.iter().find(|secret| secret["name"] == "default").expect("it is there");
    assert_eq!(own["secret"]["tlsCertificate"]["privateKey"]["inlineBytes"], "W3JlZGFjdGVkXQ==");
    assert!(!json.contains("PRIVATE KEY"));

    let (_, shown) = run(&["cert", "inspect", &listener.to_string(), "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(shown["certificates"][0]["san"], serde_json::json!([ID]));
}

#[tokio::test]
async fn the_secrets_of_our_proxy_are_shown() {
    check(&peers::meltemi().display().to_string(), &["proxy"]).await;
}

#[tokio::test]
async fn the_secrets_of_an_envoy_are_shown() {
    let Some(envoy) = peers::envoy() else { return };
    check(&envoy.display().to_string(), &[]).await;
}

#[test]
fn who_cannot_be_asked_is_exit_code_2_with_the_next_step() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::write(path("text"), "hello").expect("writable");
    let address = format!("127.0.0.1:{}", free_port().expect("a port"));
    let none = path("none");
    for (arguments, told) in [
        (&["pc", "secret", "--admin", &address][..], "admin interface"),
        (&["pc", "secret", "-f", &none], "No such file"),
        (&["pc", "secret", "-f", &path("text")], "no configuration dump"),
        (&["pc", "secret", "web-0", "--state-dir", &none], "no mesh runs"),
        (&["pc", "secret", "web-0", "--admin", &address], "cannot be used with"),
        (&["cert", "inspect", &none], "HOST:PORT"),
        (&["cert", "inspect", &address], "cannot be reached"),
        (&["cert", "inspect", &path("text")], "no certificate"),
    ] {
        let (code, text) = run(arguments);
        assert!(code == Some(2) && text.contains(told), "{arguments:?}: {code:?} {text}");
    }
}
