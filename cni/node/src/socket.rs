//! The socket at which the plugin asks.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use weft_cni::agent::{Answer, Question};

use crate::Metrics;
use crate::pods::Pods;

/// Listens at `path`, in the place of an agent that has ended. Only root may ask.
///
/// # Errors
/// If the folder cannot be made, or the socket not be listened at.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen at {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(named)?;
    }
    crate::files::remove(path)?;
    let listener = UnixListener::bind(path).map_err(named)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

/// Answers the plugin's questions, for ever.
pub async fn serve(listener: UnixListener, pods: Pods, metrics: Arc<Metrics>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (pods, metrics) = (pods.clone(), Arc::clone(&metrics));
                tokio::spawn(async move {
                    // The plugin gives up earlier.
                    const PATIENCE: Duration = Duration::from_secs(30);
                    match tokio::time::timeout(PATIENCE, answer(stream, &pods, &metrics)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "a question of the plugin could not be answered"),
                        Err(_) => tracing::warn!("a question of the plugin did not come to an end"),
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: closing connections will help.
                tracing::warn!(%error, "cannot accept a question of the plugin");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, pods: &Pods, metrics: &Metrics) -> io::Result<()> {
    // A question has some hundred bytes.
    const LONGEST: u64 = 64 << 10;
    let mut line = String::new();
    let (read, mut write) = stream.split();
    BufReader::new(read.take(LONGEST)).read_line(&mut line).await?;
    let question: Question = serde_json::from_str(&line)?;
    let answer = pods.answer(&question).await;
    let (namespace, name) = (&question.namespace, &question.name);
    match &answer {
        Answer::Redirect(_) => tracing::info!(namespace, name, "the plugin redirects a pod"),
        Answer::Leave(reason) => tracing::debug!(namespace, name, reason, "the plugin leaves a pod alone"),
        Answer::Unknown(reason) => tracing::warn!(namespace, name, reason, "a pod has to wait"),
    }
    metrics.answered(&answer);
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{api, pod, redirect};
    use kube::runtime::{reflector, watcher};

    #[tokio::test]
    async fn the_plugin_is_answered_also_after_an_agent_that_left_its_socket_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        drop(listen(&path).unwrap());
        assert!(path.exists());
        let listener = listen(&path).unwrap();
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&watcher::Event::Apply(pod("web", "1", true)));
        let metrics = Arc::new(Metrics::default());
        let server = tokio::spawn(serve(listener, Pods::new(store, api(vec![])), Arc::clone(&metrics)));
        let question = Question { namespace: "shop".into(), name: "web".into(), uid: Some("1".into()) };
        let ask = move || weft_cni::agent::ask(&path, &question, Duration::from_secs(60));
        let answer = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
        assert_eq!(answer, Answer::Redirect(Box::new(redirect())));
        assert!(metrics.text().contains("weft_cni_answers_total{answer=\"redirect\"} 1"), "{}", metrics.text());
        server.abort();
    }
}
