use meltemi_translate::{Options, translate};
#[test]
fn compile_accepts() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut bad = 0;
    for e in std::fs::read_dir(root).unwrap() {
        let dir = e.unwrap().path();
        let text = std::fs::read_to_string(dir.join("input.yaml")).unwrap();
        let node = std::fs::read_to_string(dir.join("node.yaml")).unwrap();
        let (s, _) = crate::mesh::snapshot(&text);
        let r = translate(&s, &crate::mesh::shape(&node), &Options { access_log_file: Some("/dev/stdout".into()) });
        let mut say = |x: Result<(), Vec<meltemi_compile::Rejection>>, n: &str| if let Err(v) = x { bad += 1; for v in v { println!("{dir:?} {n}: {v}"); } };
        for x in &r.listeners { say(meltemi_compile::listener(&x.body.unpack().unwrap()).map(drop), &x.name); }
        for x in &r.clusters { say(meltemi_compile::cluster(&x.body.unpack().unwrap()).map(drop), &x.name); }
        for x in &r.endpoints { say(meltemi_compile::endpoints(&x.body.unpack().unwrap()).map(drop), &x.name); }
        for x in &r.routes { say(meltemi_compile::route_table(&x.body.unpack().unwrap()).map(drop), &x.name); }
    }
    assert_eq!(bad, 0);
}
