//! Go programs with go-spiffe, unchanged: they watch a rotation, and two of them speak mutual TLS by `spiffetls`.

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The program, with the socket of the agent in the folder `agent`.
fn program(authority: &Authority, binary: &Path, agent: &str, arguments: &[&str]) -> Command {
    let socket = authority.path(agent).join("sds.sock");
    let mut command = Command::new(binary);
    command.args(arguments).env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display()));
    command
}

async fn socket(authority: &Authority, agent: &str) {
    let path = authority.path(agent).join("sds.sock");
    until("the socket", DEADLINE, async || path.exists().then_some(())).await.expect("a socket");
}

#[tokio::test]
async fn a_go_program_gets_the_identity_and_its_rotation() {
    let Some(binary) = peers::go_spiffe() else { return };
    let authority = Authority::start("4s").await;
    let agent = authority.agent(&[]);
    socket(&authority, "agent").await;
    let mut watch = program(&authority, &binary, "agent", &["watch", "2"]);
    let mut watch = Process::spawn(&mut watch, &authority.path("watch.log")).expect("it starts");
    let status = watch.wait(2 * DEADLINE).await.expect("it ends");
    assert!(status.success(), "{}\n{}", watch.output(), agent.output());
    let told: Vec<Value> =
        watch.output().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(told.len(), 2);
    for told in &told {
        assert_eq!((&told["id"], &told["roots"]), (&Value::from(ID), &Value::from(1)));
    }
    assert_ne!(told[0]["serial"], told[1]["serial"]);
}

#[tokio::test]
async fn two_go_programs_speak_mutual_tls_with_each_other_and_with_nobody_else() {
    let Some(binary) = peers::go_spiffe() else { return };
    let authority = Authority::start("1h").await;
    let stranger = "spiffe://cluster.local/ns/bank/sa/thief";
    let _agents = [
        authority.agent_of("cart", ID, &[]),
        authority.agent_of("web", WEB, &[]),
        authority.agent_of("thief", stranger, &[]),
    ];
    for agent in ["cart", "web", "thief"] {
        socket(&authority, agent).await;
    }
    let mut server = program(&authority, &binary, "cart", &["serve", WEB, "3"]);
    let mut server = Process::spawn(&mut server, &authority.path("server.log")).expect("it starts");
    let address = until("the server's address", DEADLINE, async || {
        server.output().split_once('\n').map(|(address, _)| address.to_owned())
    });
    let address = address.await.unwrap_or_else(|error| panic!("{error:#}: {}", server.output()));

    for (agent, peer, succeeds) in [("web", ID, true), ("thief", ID, false), ("web", stranger, false)] {
        let log = authority.path(&format!("{agent}-calls.log"));
        let mut call = program(&authority, &binary, agent, &["call", &address, peer]);
        let mut call = Process::spawn(&mut call, &log).expect("it starts");
        let status = call.wait(DEADLINE).await.expect("it ends");
        assert_eq!(
            status.success(),
            succeeds,
            "{agent} calls {peer}: {}\n{}",
            call.output(),
            server.output()
        );
        if succeeds {
            assert_eq!(call.output(), format!("{WEB} says hello\n"));
        }
    }
    assert!(server.wait(DEADLINE).await.expect("it ends").success());
    let told = server.output();
    assert_eq!(told.matches(&format!("called by {WEB}\n")).count(), 1, "{told}");
    assert_eq!(told.matches("refused: ").count(), 2, "{told}");
}
