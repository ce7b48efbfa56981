//! A folder under edit: what is applied, what is refused, and what is told.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use support::service;
use tokio::sync::watch;
use weft_control_plane::model::{MeshConfig, Model};
use weft_control_plane::sources::{Source, SourceState, watch_folder};

/// Far longer than any edit takes to arrive; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn watched(path: &Path) -> Source {
    watch_folder(path, Arc::new(MeshConfig::default())).await.unwrap()
}

async fn until<T: Clone>(receiver: &mut watch::Receiver<T>, what: &str, wanted: impl FnMut(&T) -> bool) -> T {
    let found = tokio::time::timeout(PATIENCE, receiver.wait_for(wanted)).await;
    found.unwrap_or_else(|_| panic!("never came: {what}")).unwrap().clone()
}

fn has(name: &'static str) -> impl FnMut(&Arc<Model>) -> bool {
    move |model| model.service("shop", name).is_some()
}

fn a(port: u16) -> String {
    service("a", "198.18.10.5", &format!("{{port: {port}}}"), "198.18.0.7")
}

#[tokio::test]
async fn edits_arrive_whether_written_in_place_or_renamed_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, a(80)).unwrap();
    let mut folder = watched(dir.path()).await;
    assert!(folder.state.borrow().loaded);
    assert!(has("a")(&folder.models.borrow()));

    std::fs::write(&file, a(81)).unwrap();
    let port = |n: u16| move |m: &Arc<Model>| m.service("shop", "a").is_some_and(|s| s.port(n).is_some());
    until(&mut folder.models, "the edit in place", port(81)).await;

    let draft = dir.path().join(".a.yaml.draft");
    std::fs::write(&draft, a(82)).unwrap();
    std::fs::rename(&draft, &file).unwrap();
    until(&mut folder.models, "the renamed file", port(82)).await;

    std::fs::remove_file(&file).unwrap();
    until(&mut folder.models, "the removal", |m: &Arc<Model>| m.services().len() == 0).await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_told_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), a(80)).unwrap();
    let mut folder = watched(dir.path()).await;
    let before = folder.models.borrow_and_update().clone();

    let broken = dir.path().join("b.yaml");
    std::fs::write(
        &broken,
        "apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: shop}\nspec: {ports: [{port: 0}]}\n",
    )
    .unwrap();
    let state = until(&mut folder.state, "the problem", |s: &Arc<SourceState>| s.is_refused()).await;
    let expected = format!(
        "{}:4: Service shop/b: spec.ports[0].port: \"0\": is not a port; ports are 1 to 65535",
        broken.display()
    );
    assert_eq!(state.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    assert_eq!(state.generation, 1);
    assert_eq!(
        state.digest,
        digest_of(dir.path(), &["a.yaml", "b.yaml"]),
        "what is refused is told by its digest as well"
    );
    assert!(!folder.models.has_changed().unwrap(), "the model in force must stay");
    assert!(Arc::ptr_eq(&before, &folder.models.borrow()));

    std::fs::write(&broken, service("b", "198.18.10.6", "{port: 80}", "198.18.0.8")).unwrap();
    until(&mut folder.models, "the mended file", has("b")).await;
    let state = until(&mut folder.state, "the good news", |s: &Arc<SourceState>| !s.is_refused()).await;
    assert_eq!((state.generation, state.problems.len()), (2, 0));
}

/// What `SourceStatus::digest` promises.
fn digest_of(folder: &Path, files: &[&str]) -> String {
    let texts = files.iter().map(|file| format!("{file}\0{}\0", std::fs::read_to_string(folder.join(file)).unwrap()));
    format!("{:x}", Sha256::digest(texts.collect::<String>()))
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_not_read() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    std::fs::write(&path, a(80)).unwrap();
    let mut folder = watched(dir.path()).await;
    let both = a(80) + &service("b", "198.18.10.6", "{port: 80}", "198.18.0.8");
    let (head, tail) = both.split_at(a(80).len());

    // Truncated, and the first half: a valid file without b, twice.
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(head.as_bytes()).unwrap();
    file.write_all(tail.as_bytes()).unwrap();
    drop(file);
    folder.models.mark_unchanged();
    until(&mut folder.models, "the whole file", has("b")).await;
    assert!(has("a")(&folder.models.borrow()));
    assert_eq!(folder.state.borrow().generation, 2, "one edit, one model");
}

#[tokio::test]
async fn without_any_good_configuration_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "kind: [").unwrap();
    let mut folder = watched(dir.path()).await;
    assert!(!folder.state.borrow().loaded);
    assert!(folder.state.borrow().is_refused());

    std::fs::write(&file, a(80)).unwrap();
    until(&mut folder.state, "the first good one", |s: &Arc<SourceState>| s.loaded).await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error_that_names_it() {
    let error = watch_folder(Path::new("/nonexistent/weft"), Arc::new(MeshConfig::default())).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nonexistent/weft: "), "{error}");
}

#[tokio::test]
async fn files_in_subfolders_count_and_hidden_files_do_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".hidden.yaml"), "kind: [").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "kind: [").unwrap();
    let mut folder = watched(dir.path()).await;
    assert!(folder.state.borrow().loaded);
    let sub = dir.path().join("shop");
    std::fs::create_dir(&sub).unwrap();
    std::fs::write(sub.join("a.yml"), a(80)).unwrap();
    until(&mut folder.models, "the file below", has("a")).await;
}
