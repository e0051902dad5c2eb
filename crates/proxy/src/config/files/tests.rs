//! Reading and watching real files.

use std::time::Duration;

use super::*;

const TWO: &str = "{version_info: '1', resources: [\
    {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a},\
    {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b}]}";
const ONE: &str = "{version_info: '2', resources: [\
    {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b}]}";

async fn next(files: &mut Files) -> Result<(Vec<String>, Vec<String>), String> {
    let update = tokio::time::timeout(Duration::from_secs(20), files.next()).await.expect("in time").1;
    let update = update.map_err(|problem| problem.to_string())?;
    Ok((update.changed.into_iter().map(|resource| resource.name.to_string()).collect(), update.removed))
}

#[tokio::test]
async fn a_move_onto_the_file_is_an_update_and_what_it_lacks_is_removed() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("cds.yaml");
    std::fs::write(&path, TWO).expect("written");
    let mut files = Files::new();
    let origin = FileOrigin { path: path.to_string_lossy().as_ref().into(), watched_directory: None };
    let key = FileKey { kind: type_url::CLUSTER, name: None, origin };
    files.follow(type_url::CLUSTER, [key].into());
    assert_eq!(next(&mut files).await, Ok((vec!["a".into(), "b".into()], vec![])));
    let other = dir.path().join("new.yaml");
    std::fs::write(&other, ONE).expect("written");
    std::fs::rename(&other, &path).expect("moved");
    assert_eq!(next(&mut files).await, Ok((vec!["b".into()], vec!["a".into()])));
    std::fs::write(&other, "no: response").expect("written");
    std::fs::rename(&other, &path).expect("moved");
    assert!(next(&mut files).await.is_err());
}

#[tokio::test]
async fn a_named_resource_must_be_the_only_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.yaml");
    std::fs::write(&path, TWO).expect("written");
    let origin = FileOrigin { path: path.to_string_lossy().as_ref().into(), watched_directory: None };
    let key = || FileKey { kind: type_url::CLUSTER, name: Some("a".to_owned()), origin: origin.clone() };
    let mut files = Files::new();
    files.follow(type_url::CLUSTER, [key()].into());
    assert!(next(&mut files).await.unwrap_err().contains("Unexpected resource length: 2"));
    std::fs::write(&path, ONE).expect("written");
    let mut files = Files::new();
    files.follow(type_url::CLUSTER, [key()].into());
    assert!(next(&mut files).await.unwrap_err().contains("(expecting a): b"));
}

#[test]
fn a_file_that_is_not_there_is_refused_in_the_words_of_envoy() {
    let origin = FileOrigin { path: "/no/such".into(), watched_directory: None };
    let reason = check(&origin).unwrap_err();
    assert_eq!(reason, "paths must refer to an existing path in the system: '/no/such' does not exist");
}
